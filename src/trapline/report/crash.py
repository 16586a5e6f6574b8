"""Where a guest was when it crashed or was stopped, as values."""

from typing import NamedTuple

from trapline.asm.disassembler import Instruction
from trapline.explain.explanation import Explanation
from trapline.machine.registers import Registers
from trapline.symbols import Symbol

from .document import CrashDocument, NamedDocument


class Frame(NamedTuple):
    """A caller."""

    address: int
    """Linear: where it goes on, after its call."""
    symbol: Symbol | None
    """The name of the call's address, where symbols know it."""


class StackEntry(NamedTuple):
    """A value on the stack."""

    value: int
    """As wide as the code is: 2, 4 or 8 bytes."""
    symbol: Symbol | None
    """What it is called if it is a return address."""


class CrashContext(NamedTuple):
    """Where a guest was: copies that outlast it. Addresses are linear."""

    registers: Registers
    """Copies, which cannot be written."""
    bits: int
    """The operand size of the code: 16, 32 or 64."""
    address: int
    """Of the instruction at CS:RIP."""
    symbol: Symbol | None
    """The name of that address, where symbols know it."""
    code: tuple[Instruction, ...]
    """The instruction at `address` with some before and after it; empty: nothing is mapped there."""
    callers: tuple[Frame, ...]
    """By frame pointers, the innermost first: a guess."""
    stack_address: int
    """Of SS:RSP."""
    stack: tuple[StackEntry, ...]
    """From the stack pointer up; empty: the stack is not mapped."""
    explanation: Explanation | None = None
    """Why the guest shut down, or why the exception was raised that it stopped at."""

    def to_json(self) -> CrashDocument:
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


def named(symbol: Symbol | None) -> NamedDocument:
    """Return the members of an object that name an address."""
    if symbol is None:
        return {}
    return {"symbol": symbol.place} if symbol.source is None else {"symbol": symbol.place, "source": symbol.source}
