"""What stands at CS:RIP: the few instructions whose exits need a look at their bytes (APM 15.9, 15.12)."""

from typing import Final, NamedTuple

import iced_x86 as iced

from trapline.arch.descriptors import Attribute
from trapline.arch.paging import PAGE, NotMapped, walk
from trapline.arch.registers import EFER
from trapline.arch.vmcb import Vmcb
from trapline.machine.memory import GuestMemory

LONGEST: Final = 15
"""Bytes in the longest instruction."""


Mnemonic = iced.Mnemonic
SVM_MNEMONICS: Final = frozenset(
    (
        Mnemonic.VMRUN,
        Mnemonic.VMMCALL,
        Mnemonic.VMLOAD,
        Mnemonic.VMSAVE,
        Mnemonic.STGI,
        Mnemonic.CLGI,
        Mnemonic.SKINIT,
        Mnemonic.INVLPGA,
    )
)
CONTROL_REGISTERS: Final = frozenset((iced.Register.CR0, iced.Register.CR3, iced.Register.CR4))

_GENERAL: Final = {
    register: number
    for first in (iced.Register.EAX, iced.Register.RAX)
    for number, register in enumerate(range(first, first + 16))
}


class Decoded(NamedTuple):
    """An instruction of the guest."""

    mnemonic: int
    """iced's number; INVALID where the bytes are none, or could not be read."""
    length: int
    immediate: int
    """The vector of INT n."""
    writes_control: bool
    """MOV to CR0, CR3 or CR4."""
    register: int
    """The general register of a MOV from or to a control or debug register, by its number; -1: there is none."""


def bits_of(vmcb: Vmcb) -> int:
    """Return the size of code that the guest executes: 16, 32 or 64."""
    attributes = vmcb.save.cs.attributes
    if vmcb.save.efer & EFER.LMA and attributes & Attribute.L:
        return 64
    return 32 if attributes & Attribute.DB else 16


def read_linear(vmcb: Vmcb, memory: GuestMemory, gva: int, size: int) -> bytes:
    """Return up to `size` bytes at a linear address: fewer where the next page is not mapped."""
    save, data = vmcb.save, b""
    while size:
        part = min(size, PAGE - gva % PAGE)
        try:
            data += memory.read(walk(memory.read, save.cr0, save.cr3, save.cr4, save.efer, gva), part)
        except (NotMapped, LookupError):
            break
        gva, size = gva + part, size - part
    return data


def decode_at_rip(vmcb: Vmcb, memory: GuestMemory) -> Decoded:
    """Decode the instruction at CS:RIP."""
    bits = bits_of(vmcb)
    gva = vmcb.save.cs.base + vmcb.save.rip
    gva &= (1 << 64) - 1 if bits == 64 else 0xFFFF_FFFF
    decoder = iced.Decoder(bits, read_linear(vmcb, memory, gva, LONGEST), iced.DecoderOptions.AMD)
    instruction = decoder.decode()
    immediate = instruction.immediate8 if instruction.mnemonic == Mnemonic.INT else 0
    writes_control = (
        instruction.mnemonic == Mnemonic.MOV
        and instruction.op0_kind == iced.OpKind.REGISTER
        and instruction.op0_register in CONTROL_REGISTERS
    )
    register = _GENERAL.get(instruction.op1_register, _GENERAL.get(instruction.op0_register, -1))
    return Decoded(instruction.mnemonic, instruction.len, immediate, writes_control, register)


def next_rip(vmcb: Vmcb, length: int) -> int:
    """Return the RIP behind an instruction; it wraps at 32 bits outside 64-bit code."""
    rip = vmcb.save.rip + length
    return rip if bits_of(vmcb) == 64 else rip & 0xFFFF_FFFF
