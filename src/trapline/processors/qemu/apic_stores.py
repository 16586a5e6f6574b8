"""The instructions that write to the local APIC, which fault with several CPUs (`nested`): what they store.

The few are known that systems use: MOV, XCHG, AND, OR and XOR of 4 bytes. Smaller stores have no effect in QEMU
(apic.c, apic_mem_write).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import iced_x86 as iced

from trapline.arch.bits import M32
from trapline.arch.registers import RFLAGS, Gprs
from trapline.arch.vmcb import SaveArea
from trapline.asm.decoder import Mnemonic, instruction_at_rip
from trapline.machine.memory import GuestMemory

_WORD: Final = 4
_LOGIC: Final[dict[int, Callable[[int, int], int]]] = {
    Mnemonic.AND: lambda old, value: old & value,
    Mnemonic.OR: lambda old, value: old | value,
    Mnemonic.XOR: lambda old, value: old ^ value,
}
_IMMEDIATES: Final = frozenset((iced.OpKind.IMMEDIATE32, iced.OpKind.IMMEDIATE8TO32))
_NAMES: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


class Store(NamedTuple):
    """A store of an instruction."""

    length: int
    """Bytes of the instruction."""
    value: int
    """The operand."""
    mnemonic: int
    """iced's."""
    register: str | None
    """Of an XCHG, the register that gets what was there."""

    @property
    def reads(self) -> bool:
        """Whether it needs what is there."""
        return self.mnemonic != Mnemonic.MOV

    def finish(self, old: int, save: SaveArea, gprs: Gprs) -> int:
        """Return what is stored where `old` is, and change registers and flags as the instruction does."""
        if self.register is not None:
            setattr(_holder(self.register, save, gprs), self.register, old)
            return self.value
        logic = _LOGIC.get(self.mnemonic)
        if logic is None:
            return self.value
        result = logic(old, self.value)
        flags = RFLAGS.ZF if result == 0 else RFLAGS.SF if result >> 31 else 0
        flags |= 0 if (result & 0xFF).bit_count() % 2 else RFLAGS.PF
        save.rflags = save.rflags & ~RFLAGS.STATUS | flags
        return result


def store_at_rip(save: SaveArea, gprs: Gprs, memory: GuestMemory) -> Store | None:
    """Return the store of the instruction at CS:RIP; None: it is not one of those that are known."""
    instruction = instruction_at_rip(save, memory)
    mnemonic = instruction.mnemonic
    known = mnemonic in (Mnemonic.MOV, Mnemonic.XCHG) or mnemonic in _LOGIC
    if not known or instruction.op0_kind != iced.OpKind.MEMORY or _size(instruction) != _WORD:
        return None
    if instruction.op1_kind in _IMMEDIATES:
        return Store(instruction.len, instruction.immediate(1) & M32, mnemonic, None)
    if instruction.op1_kind != iced.OpKind.REGISTER:
        return None
    name = _NAMES[iced.RegisterExt.number(instruction.op1_register)]
    value = getattr(_holder(name, save, gprs), name) & M32
    return Store(instruction.len, value, mnemonic, name if mnemonic == Mnemonic.XCHG else None)


def _size(instruction: iced.Instruction) -> int:
    return iced.MemorySizeExt.size(instruction.memory_size)


def _holder(name: str, save: SaveArea, gprs: Gprs) -> SaveArea | Gprs:
    return save if name in ("rax", "rsp") else gprs
