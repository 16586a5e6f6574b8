"""The one decoder of guest code, and the few facts of an instruction that its exit does not tell (APM 15.9, 15.12)."""

from functools import lru_cache
from typing import Final, NamedTuple

import iced_x86 as iced

from trapline.arch.vmcb import SaveArea
from trapline.machine.linear import code_bits, read_code
from trapline.machine.memory import GuestMemory

Mnemonic = iced.Mnemonic
Register = iced.Register
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
_STRING_BITS: Final = {
    iced.OpKind.MEMORY_SEG_SI: 16,
    iced.OpKind.MEMORY_SEG_DI: 16,
    iced.OpKind.MEMORY_ESDI: 16,
    iced.OpKind.MEMORY_SEG_ESI: 32,
    iced.OpKind.MEMORY_SEG_EDI: 32,
    iced.OpKind.MEMORY_ESEDI: 32,
    iced.OpKind.MEMORY_SEG_RSI: 64,
    iced.OpKind.MEMORY_SEG_RDI: 64,
    iced.OpKind.MEMORY_ESRDI: 64,
}
"""The address size of a string instruction, by the kind of its operand."""


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


def new_decoder(code: bytes, bits: int, address: int = 0) -> iced.Decoder:
    """Return a decoder of `bits`-bit code, as an AMD processor decodes it: 66 E9 has a 16-bit offset in 64-bit code.

    `address` is that of the first byte.
    """
    return iced.Decoder(bits, code, iced.DecoderOptions.AMD, ip=address)


def branch_target(instruction: iced.Instruction) -> int:
    """Return the linear address that a near branch leads to which was decoded at its linear address.

    iced keeps 16 bits of the target in 16-bit code, which is right for an offset alone.
    """
    target: int = instruction.near_branch_target
    if instruction.code_size == iced.CodeSize.CODE16 and instruction.op0_kind == iced.OpKind.NEAR_BRANCH16:
        return instruction.ip + (target - instruction.ip + 0x8000 & 0xFFFF) - 0x8000
    return target


def decode_at_rip(save: SaveArea, memory: GuestMemory) -> Decoded:
    """Decode the instruction at CS:RIP."""
    return _decode(read_code(save, memory), code_bits(save))


@lru_cache(1024)
def _decode(code: bytes, bits: int) -> Decoded:
    instruction = new_decoder(code, bits).decode()
    immediate = instruction.immediate8 if instruction.mnemonic == Mnemonic.INT else 0
    writes_control = (
        instruction.mnemonic == Mnemonic.MOV
        and instruction.op0_kind == iced.OpKind.REGISTER
        and instruction.op0_register in CONTROL_REGISTERS
    )
    register = general_register(instruction)
    return Decoded(instruction.mnemonic, instruction.len, immediate, writes_control, register)


def repetition_at_rip(save: SaveArea, memory: GuestMemory) -> tuple[int, int]:
    """Return the length of the string instruction with REP at CS:RIP and the bits of its counter; zeros: it is none."""
    instruction = instruction_at_rip(save, memory)
    if instruction.has_rep_prefix or instruction.has_repne_prefix:
        bits = address_bits(instruction)
        if bits:
            return instruction.len, bits
    return 0, 0


def address_bits(instruction: iced.Instruction) -> int:
    """Return the address size of a string instruction: 16, 32 or 64; 0: it is none."""
    kinds = map(instruction.op_kind, range(instruction.op_count))
    return next((_STRING_BITS[kind] for kind in kinds if kind in _STRING_BITS), 0)


def instruction_at_rip(save: SaveArea, memory: GuestMemory) -> iced.Instruction:
    """Return the instruction at CS:RIP as iced has it; its mnemonic is INVALID where it could not be read."""
    return new_decoder(read_code(save, memory), code_bits(save)).decode()


def general_register(instruction: iced.Instruction) -> int:
    """Return the general register of a MOV from or to a control or debug register, by its number; -1: there is none."""
    number: int = _GENERAL.get(instruction.op1_register, _GENERAL.get(instruction.op0_register, -1))
    return number
