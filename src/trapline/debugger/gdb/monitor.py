"""The commands of gdb's `monitor`: what gdb has no command for."""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from trapline.api import DISCARD, FORWARD, inject
from trapline.arch.mask import parse_some
from trapline.arch.vectors import bits
from trapline.debugger import registers, tables
from trapline.debugger.registers import Group
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.explain.pictures import State, Table
from trapline.hypervisor.exception import Decision
from trapline.trace.exception_record import line_of
from trapline.typed import read_integer

from .startup import symbol_commands

_LAST: Final = 8
_LINES: Final = 8
_ENTRIES: Final = 64
_MOST: Final = 10_000
"""Records and instructions that one command prints."""


class Monitor:
    """Executes commands on a stopped target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.decision: Decision | None = None
        """What `discard`, `forward` or `inject` said about the exception at which the guest is stopped."""
        self.physical = False
        """Whether gdb's addresses are physical."""

    def execute(self, text: str) -> str:
        """Execute a command, which may be cut short as far as it is unique; return what it prints.

        Raises UsageError for one that cannot be done.
        """
        word, _, rest = text.strip().partition(" ")
        if not word:
            word = "help"
        names = [word] if word in _COMMANDS else [name for name in _COMMANDS if name.startswith(word)]
        if len(names) != 1:
            known = f"it may be {' or '.join(names)}" if names else "`monitor help` lists what there is"
            raise UsageError(f"monitor {word}: {known}")
        return _COMMANDS[names[0]].run(self, rest.strip())

    def _help(self, rest: str) -> str:
        width = max(len(command.usage) for command in _COMMANDS.values())
        return "".join(f"{command.usage:{width}}  {command.text}\n" for command in _COMMANDS.values())

    def _catch(self, rest: str) -> str:
        if not rest:
            return "".join(f"{caught}\n" for caught in self._target.catches) or "nothing is caught\n"
        return f"{self._target.catch(rest)}\n"

    def _delete(self, rest: str) -> str:
        number = None if rest == "all" else _number(rest, "catch")
        found = [caught for caught in self._target.catches if number in (None, caught.number)]
        if not found:
            raise UsageError(f"no catch has the number {rest}")
        for caught in found:
            self._target.release(caught)
        return ""

    def _why(self, rest: str) -> str:
        explanation = self._target.explain()
        if explanation is None:
            return f"{self._target.stop.reason.value}\n"
        return "".join(f"{start}{text}\n" for start, text in explanation.paragraphs())

    def _last_records(self, rest: str) -> str:
        count = _number(rest, "number of exceptions") if rest else _LAST
        records = self._target.machine.exceptions
        found = records[max(0, len(records) - min(count, _MOST)) :]
        return "".join(f"{line_of(record)}\n" for record in found) or "no exception was recorded\n"

    def _idt(self, rest: str) -> str:
        return _render(tables.idt(self._target))

    def _gdt(self, rest: str) -> str:
        return _render(tables.gdt(self._target, self._count(rest)))

    def _ldt(self, rest: str) -> str:
        return _render(tables.ldt(self._target, self._count(rest)))

    def _count(self, rest: str) -> int:
        return min(_number(rest, "number of entries"), tables.DESCRIPTORS) if rest else _ENTRIES

    def _tss(self, rest: str) -> str:
        return _render(tables.tss(self._target))

    def _walk(self, rest: str) -> str:
        found = tables.walk(self._target, self._address(rest))
        lines = [f"{found.address:#x}: CR3 {found.cr3:#x}"]
        for entry in found.entries:
            flags = " ".join(f"{flag.name}={flag.value}" for flag in entry.flags)
            mark = "  <-" if entry.wrong else ""
            lines.append(f"{entry.name:5} {entry.place:4} at {entry.gpa:#x} is {entry.value:#x}  {flags}{mark}")
        end = found.denied if found.gpa is None else f"at {found.gpa:#x}: {', '.join(found.rights)}"
        return "\n".join([*lines, f"{end}\n"])

    def _inject(self, rest: str) -> str:
        words = rest.split()
        if not 1 <= len(words) <= 3:
            raise UsageError("monitor inject VECTOR [ERROR-CODE [ADDRESS]]: inject pf 2 0x1000")
        (vector, *more) = bits(parse_some(words[0]))
        if more:
            raise UsageError(f"monitor inject: {words[0]} is more than one vector")
        return self._decide(inject(vector, *(_number(word, "value") for word in words[1:])))

    def _discard(self, rest: str) -> str:
        if rest not in ("", "skip"):
            raise UsageError("monitor discard [skip]: skip goes on after the instruction")
        self._check_exception()
        if rest:
            self._target.skip()
        return self._decide(DISCARD)

    def _forward(self, rest: str) -> str:
        return self._decide(FORWARD)

    def _decide(self, decision: Decision) -> str:
        self._check_exception()
        self._target.stop.deliver(decision)  # refuses what cannot be delivered here
        self.decision = decision
        return ""

    def _check_exception(self) -> None:
        if self._target.stop.exception is None:
            raise UsageError("the guest is not stopped at an exception")

    def _disassemble(self, rest: str) -> str:
        words = rest.split()
        if len(words) > 2:
            raise UsageError("monitor disassemble [ADDRESS [COUNT]]")
        cpu = self._target.cpu
        at = self._address(words[0]) if words else cpu.address
        count = _number(words[1], "number of instructions") if len(words) > 1 else _LINES
        return "".join(_lines(self._target, at, min(count, _MOST)))

    def _backtrace(self, rest: str) -> str:
        frames = self._target.frames()
        return "".join(
            f"#{number:<2} {frame.address:#x} {frame.symbol or ''}".rstrip() + "\n"
            for number, frame in enumerate(frames)
        )

    def _symbols(self, rest: str) -> str:
        session = self._target.machine.session
        session.place_symbols()
        lines = [*symbol_commands(session.names), *(f"# not found yet: {file.name}" for file in session.names.unplaced)]
        return "".join(f"{line}\n" for line in lines) or "there are no symbols\n"

    def _type(self, rest: str) -> str:
        text = rest.encode(errors="surrogateescape").decode("unicode_escape", errors="replace")
        self._target.machine.console.write(text.encode("latin-1", errors="replace"))
        return ""

    def _physical(self, rest: str) -> str:
        if rest:
            if rest not in ("on", "off"):
                raise UsageError("monitor physical [on|off]")
            self.physical = rest == "on"
        return f"gdb's addresses are {'physical' if self.physical else 'linear'}\n"

    def _registers(self, rest: str) -> str:
        words = rest.lower().split()
        known = {group.name.lower(): group for group in Group}
        if any(word not in known for word in words):
            raise UsageError(f"monitor registers [GROUP]...: the groups are {', '.join(known)}")
        lines = []
        for group in map(known.__getitem__, words or known):
            for register in registers.group_of(group):
                value = registers.read(self._target, register)
                lines.append(f"{register.name:15} {'-' if value is None else hex(value)}\n")
        return "".join(lines)

    def _address(self, text: str) -> int:
        if not text:
            raise UsageError("an address or a symbol is missing")
        if text.startswith("$"):
            name = text[1:].lower()
            value = self._target.cpu.address if name == "pc" else registers.read(self._target, registers.find(name))
            if value is None:
                raise UsageError(f"{text} has no value here")
            return value
        number = read_integer(text)
        return self._target.machine.resolve(text if number is None else number)


class _Command(NamedTuple):
    usage: str
    text: str
    run: Callable[[Monitor, str], str]


# ruff: noqa: SLF001  # the table is a part of the class
_COMMANDS: Final = {
    command.usage.split()[0]: command
    for command in (
        _Command("catch [VECTORS] [if CONDITION]", "stop before such exceptions; alone: list them", Monitor._catch),
        _Command("delete NUMBER|all", "catch it no more", Monitor._delete),
        _Command("why", "explain the exception or the shutdown at which the guest is stopped", Monitor._why),
        _Command("last [N]", "print the last exceptions that were recorded", Monitor._last_records),
        _Command("forward", "deliver the exception when the guest goes on", Monitor._forward),
        _Command("discard [skip]", "do not deliver it; skip: go on after the instruction", Monitor._discard),
        _Command("inject VECTOR [CODE [ADDRESS]]", "deliver another exception in its place", Monitor._inject),
        _Command("idt", "decode the interrupt descriptor table, or real mode's vector table", Monitor._idt),
        _Command("gdt [N]", "decode the global descriptor table, or its first N entries", Monitor._gdt),
        _Command("ldt [N]", "decode the local descriptor table", Monitor._ldt),
        _Command("tss", "decode the stacks in the task-state segment", Monitor._tss),
        _Command("registers [GROUP]...", "all of a group, by the library's names", Monitor._registers),
        _Command("walk ADDRESS", "walk the page tables: of a number, a symbol, or a register as $pc", Monitor._walk),
        _Command("disassemble [ADDRESS [N]]", "disassemble by the guest's own mode", Monitor._disassemble),
        _Command("backtrace", "the callers, in every mode", Monitor._backtrace),
        _Command("symbols", "gdb's commands that load the symbols, with a slide once it is found", Monitor._symbols),
        _Command("physical [on|off]", "whether gdb's addresses are physical", Monitor._physical),
        _Command("type TEXT", r"send text to the guest's console; \n is a new line", Monitor._type),
        _Command("help", "this list", Monitor._help),
    )
}


def _number(text: str, what: str) -> int:
    number = read_integer(text)
    if number is None or number < 0:
        raise UsageError(f"{text!r} is not a {what}")
    return number


def _lines(target: Target, at: int, count: int) -> Iterator[str]:
    here = target.cpu.address
    for line in target.cpu.disassemble(count, at):
        mark = "=>" if line.address == here else "  "
        yield f"{mark} {target.named(line.address)}:\t{line.text}\n"


def _render(table: Table) -> str:
    lines = [f"{table.name} at {table.base:#x}, limit {table.limit:#x}"]
    for entry in table.entries:
        if entry.state is State.EMPTY:
            continue
        state = "" if entry.state is State.GOOD else f"  ({entry.state.value})"
        used = f"  <- {', '.join(entry.used)}" if entry.used else ""
        lines.append(f"{entry.label:>8}  {entry.text}{state}{used}")
    return "\n".join([*lines, ""])
