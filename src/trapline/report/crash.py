"""The context of a guest at a crash or a stop: registers, code, callers and stack."""

from typing import NamedTuple

from trapline.asm.disassembler import Instruction
from trapline.explain.explanation import Explanation
from trapline.machine.registers import Registers
from trapline.symbols import Symbol

from .document import CpuDocument, CrashDocument, NamedDocument


class Frame(NamedTuple):
    """A caller."""

    address: int
    """The linear return address."""
    symbol: Symbol | None
    """The symbol of the call; None: unknown."""
    guessed: bool = False
    """By frame pointers, which a function need not keep; otherwise by the call frame information of symbols."""


class StackEntry(NamedTuple):
    """A value on the stack."""

    value: int
    """Of the code's size: 2, 4 or 8 bytes."""
    symbol: Symbol | None
    """The symbol, in case the value is a return address."""


class CrashContext(NamedTuple):
    """The context of a guest, as copies. Addresses are linear."""

    registers: Registers
    """Copies: they cannot be written."""
    bits: int
    """The operand size of the code: 16, 32 or 64."""
    address: int
    """The address of the instruction at CS:RIP."""
    symbol: Symbol | None
    """The symbol of that address; None: unknown."""
    code: tuple[Instruction, ...]
    """The instruction at `address` with some before and after it; empty: nothing is mapped there."""
    callers: tuple[Frame, ...]
    """Innermost first; empty: unknown."""
    stack_address: int
    """The linear address of SS:RSP."""
    stack: tuple[StackEntry, ...]
    """From the stack pointer up; empty: the stack is not mapped."""
    halted: bool = False
    """Whether it waits in HLT."""
    explanation: Explanation | None = None
    """The explanation of the shutdown, or of the exception at which the guest stopped."""
    cpu: int | None = None
    """The number of the CPU; None: the machine has one."""

    def to_json(self) -> CrashDocument:
        """Return the context for JSON; addresses and values are hexadecimal text."""
        cpu: CpuDocument = {} if self.cpu is None else {"cpu": self.cpu}
        return {
            "registers": self.registers.to_json(),
            "bits": self.bits,
            **cpu,
            "halted": self.halted,
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
            "callers": [
                {"address": f"{frame.address:#x}", **named(frame.symbol), "guessed": frame.guessed}
                for frame in self.callers
            ],
            "stack_address": f"{self.stack_address:#x}",
            "stack": [{"value": f"{entry.value:#x}", **named(entry.symbol)} for entry in self.stack],
        }


def named(symbol: Symbol | None) -> NamedDocument:
    """Return the JSON members that name an address."""
    if symbol is None:
        return {}
    found: NamedDocument = {"symbol": symbol.place}
    if symbol.source is not None:
        found["source"] = symbol.source
    if symbol.inlined:
        found["inlined"] = [{"function": each.function, "source": each.place} for each in symbol.inlined]
    return found
