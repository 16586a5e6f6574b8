"""Where a stopped guest is: its registers, the code at RIP, who called it, and its stack."""

from typing import Any, Final, NamedTuple

from trapline.arch.paging import PAGE
from trapline.asm.disassembler import Instruction, around
from trapline.explain.explanation import Explanation
from trapline.machine.linear import (
    address_mask,
    code_address,
    code_base,
    code_bits,
    read_mapped,
    stack_address,
    stack_base,
    stack_pointer,
)
from trapline.machine.memory import GuestMemory
from trapline.symbols import Names, Symbol, backtrace
from trapline.symbols.backtrace import stack_words

from .registers import Registers

_BEFORE: Final = 48
"""Bytes of code before the instruction."""
_AFTER: Final = 64


class Frame(NamedTuple):
    """A caller."""

    address: int
    """Linear: where it goes on, after its call."""
    symbol: Symbol | None


class StackEntry(NamedTuple):
    """A value on the stack, as wide as the code is."""

    value: int
    symbol: Symbol | None
    """What it is called if it is a return address."""


class CrashContext(NamedTuple):
    """Copies of what a stopped guest had."""

    registers: Registers
    bits: int
    """Size of code: 16, 32 or 64."""
    address: int
    """Of the instruction at CS:RIP; linear, as all addresses here."""
    symbol: Symbol | None
    code: tuple[Instruction, ...]
    """The instruction at `address` with some before and after it; empty: nothing is mapped there."""
    callers: tuple[Frame, ...]
    """By frame pointers, the innermost first: a guess."""
    stack_address: int
    stack: tuple[StackEntry, ...]
    """From the stack pointer up; empty: the stack is not mapped."""
    explanation: Explanation | None = None
    """Why the guest shut down."""

    def to_json(self) -> dict[str, Any]:
        """Return the same for programs; addresses and values are hexadecimal text."""
        return {
            "registers": self.registers.to_json(),
            "bits": self.bits,
            "address": f"{self.address:#x}",
            **named(self.symbol),
            "code": [
                {
                    "address": f"{line.address:#x}",
                    "bytes": line.data.hex(),
                    "text": line.text,
                    "at": line.address == self.address,
                }
                for line in self.code
            ],
            "callers_guessed": [{"address": f"{frame.address:#x}", **named(frame.symbol)} for frame in self.callers],
            "stack_address": f"{self.stack_address:#x}",
            "stack": [{"value": f"{entry.value:#x}", **named(entry.symbol)} for entry in self.stack],
        }


def named(symbol: Symbol | None) -> dict[str, str]:
    """Return the members of an object that name an address."""
    if symbol is None:
        return {}
    return {"symbol": symbol.place} if symbol.source is None else {"symbol": symbol.place, "source": symbol.source}


def take(registers: Registers, memory: GuestMemory, names: Names, syntax: str) -> CrashContext:
    """Copy what a stopped guest has; what is not mapped is left out."""
    save, bits = registers.save, code_bits(registers.save)
    address = code_address(save)
    start, code = _code(registers, memory, address)
    pointer = stack_pointer(save)
    return CrashContext(
        registers.copy(),
        bits,
        address,
        names.lookup(address),
        tuple(around(code, start, address, bits, syntax=syntax)),
        callers(registers, memory, names),
        stack_address(save),
        tuple(
            StackEntry(value, names.caller(value))
            for value in stack_words(lambda offset, size: _stack(registers, memory, offset, size), pointer, bits)
        ),
    )


def callers(registers: Registers, memory: GuestMemory, names: Names) -> tuple[Frame, ...]:
    """Follow the frame pointers of a stopped guest; empty where none are kept."""
    save, bits = registers.save, code_bits(registers.save)
    mask, base = address_mask(save), code_base(save)

    def is_code(rip: int) -> bool:
        address = base + rip & mask
        mapped = read_mapped(save, memory, address, 1)
        return bool(mapped) and (not names.files or names.caller(address) is not None)

    def stack(offset: int, size: int) -> bytes:
        return _stack(registers, memory, offset, size)

    found = backtrace(stack, registers.rbp & mask, stack_pointer(save), bits, is_code)
    addresses = [base + frame.address & mask for frame in found]
    return tuple(Frame(address, names.caller(address)) for address in addresses)


def _stack(registers: Registers, memory: GuestMemory, offset: int, size: int) -> bytes:
    save = registers.save
    return read_mapped(save, memory, stack_base(save) + offset & address_mask(save), size)


def _code(registers: Registers, memory: GuestMemory, address: int) -> tuple[int, bytes]:
    """Return what is mapped around an instruction, and where that begins."""
    save, mask = registers.save, address_mask(registers.save)
    after = read_mapped(save, memory, address, _AFTER)
    for start in (max(address - _BEFORE, 0), address & -PAGE):  # the page before may not be mapped
        before = read_mapped(save, memory, start & mask, address - start)
        if len(before) == address - start:
            return start, before + after
    return address, after
