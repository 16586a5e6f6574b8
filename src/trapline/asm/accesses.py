"""The memory that an instruction accesses, as its operands have it before it executes (APM vol. 1, 2.2.1)."""

from typing import Final, NamedTuple

import iced_x86 as iced

from trapline.arch.layout import packer
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea
from trapline.machine.linear import address_mask, code_bits, read_code
from trapline.machine.memory import GuestMemory

from .decoder import new_decoder

_FACTORY: Final = iced.InstructionInfoFactory()
_MASKS: Final = {
    iced.CodeSize.CODE16: (1 << 16) - 1,
    iced.CodeSize.CODE32: (1 << 32) - 1,
    iced.CodeSize.CODE64: (1 << 64) - 1,
}
_SEGMENTS: Final = {getattr(iced.Register, name.upper()): name for name in ("es", "cs", "ss", "ds", "fs", "gs")}
_, _NAMES = packer(Gprs)
_PARTS: Final = {
    register: (
        _NAMES[iced.RegisterExt.number(iced.RegisterExt.full_register(register))],
        (1 << 8 * iced.RegisterExt.size(register)) - 1,
    )
    for register in (getattr(iced.Register, name) for name in dir(iced.Register) if name.isupper())
    if iced.RegisterExt.is_gpr(register)
}
"""Name and mask of what a general register, or a part of it, is read from."""

_WRITES: Final = tuple(
    getattr(iced.OpAccess, name) for name in ("WRITE", "COND_WRITE", "READ_WRITE", "READ_COND_WRITE")
)


class Access(NamedTuple):
    """Bytes that an instruction accesses."""

    gva: int
    size: int
    """0: it is not known; a part of the state of the CPU, as a rule."""
    writes: bool = False
    """Whether it may write them."""


def accesses_at_rip(save: SaveArea, gprs: Gprs, memory: GuestMemory) -> list[Access]:
    """Return the memory operands of the instruction at CS:RIP, the stack of a push among them.

    Of a string instruction it is the next element. What the CPU accesses for itself is left out, as descriptors.
    """
    return accesses_of(new_decoder(read_code(save, memory), code_bits(save), save.rip).decode(), save, gprs)


def accesses_of(instruction: iced.Instruction, save: SaveArea, gprs: Gprs) -> list[Access]:
    """Return the same of an instruction that was decoded at its RIP."""
    bits = code_bits(save)
    found = []
    for used in _FACTORY.info(instruction).used_memory():
        offset = _value(used.base, save, gprs) + _value(used.index, save, gprs) * used.scale + used.displacement
        base = 0
        if bits != 64 or used.segment in (iced.Register.FS, iced.Register.GS):
            base = getattr(save, _SEGMENTS[used.segment]).base
        kind = used.memory_size or instruction.memory_size  # under REP the first is not known
        gva = base + (offset & _MASKS[used.address_size]) & address_mask(save)
        found.append(Access(gva, iced.MemorySizeExt.size(kind), used.access in _WRITES))
    return found


def moves_operand(instruction: iced.Instruction) -> bool:
    """Return whether an instruction writes a register that its own memory operand is addressed by."""
    info = _FACTORY.info(instruction)
    written = {iced.RegisterExt.full_register(one.register) for one in info.used_registers() if one.access in _WRITES}
    return any(
        iced.RegisterExt.full_register(part) in written for one in info.used_memory() for part in (one.base, one.index)
    )


def _value(register: int, save: SaveArea, gprs: Gprs) -> int:
    """Return the value of a general register or a part of it; 0: there is none."""
    name, mask = _PARTS.get(register, ("", 0))
    return getattr(save if name in ("rax", "rsp") else gprs, name) & mask if mask else 0
