"""The result of a run as lines of text, for a terminal, an error message or a log. `cli.table` draws the tables."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.arch.mode import mode, paging
from trapline.arch.registers import RFLAGS
from trapline.arch.vmcb import Segment
from trapline.explain.explanation import Explanation
from trapline.trace.exception_record import ExceptionRecord
from trapline.typed import printable

from .counted import counted
from .crash import CrashContext
from .fold import PLAIN, Width, fold, fold_line
from .result import Ending, Result

_SHOWN: Final = 12
"""How many of the last exceptions are shown."""
_TURNS: Final = 4
"""The most exceptions that are seen to take turns."""
_OF_BIOS: Final = re.compile(
    r"SeaBIOS \(|iPXE |Machine UUID|Booting from|Boot failed|No bootable device|Press |Probing EDD",
)
"""How lines begin that firmware writes, and the first code of a Linux kernel."""
_VALUES: Final = 8
"""Values of the stack that are shown where no callers are known."""
_BYTES: Final = 8
"""Bytes of an instruction that are shown."""
_CONTROL: Final = ("cr0", "cr2", "cr3", "cr4", "efer")
_PROCESSORS: Final = {"unicorn": "in this process, on Unicorn", "qemu": "on QEMU"}


class Titles(NamedTuple):
    """The headings of the parts of a report."""

    last: str = "the last exceptions, newest last"
    where: str = "where it stopped"
    why: str = "why it was raised"


_TITLES: Final = {
    Ending.SHUTDOWN: Titles("triple fault: the last exceptions, newest last", "at the shutdown", "why it shut down"),
    Ending.RULE: Titles(where="where the rule stopped it"),
    Ending.HALTED: Titles(where="where it halted"),
    Ending.RESET: Titles(where="where it reset the machine"),
    Ending.DEBUG_EXIT: Titles(where="where it ended"),
    Ending.TIMEOUT: Titles(where="where it was"),
    Ending.INTERRUPTED: Titles(where="where it was"),
}
_RETURNED: Final = {
    Ending.TIMEOUT: "which it had not come back from",
    Ending.INTERRUPTED: "which it had not come back from",
}
_DID: Final = {
    Ending.OFF: "switched off",
    Ending.HALTED: "halted",
    Ending.RESET: "reset the machine",
    Ending.DEBUG_EXIT: "ended",
}
"""What a guest did in its handler; at any other ending it was there."""


def ending_text(run: Result) -> str:
    """Return how a run ended, as `debug exit with 0x1`."""
    if run.ending is Ending.DEBUG_EXIT and run.exit_value is not None:
        return f"debug exit with {run.exit_value:#x}"
    return run.ending.value


def headline(run: Result) -> str:
    """Return how and when a run ended, and on which processor it ran."""
    processor = _PROCESSORS.get(run.processor, f"on {run.processor}")
    shut_down = run.crash is not None and run.crash.cpu is not None and run.ending is Ending.SHUTDOWN
    cpu = f" on CPU {run.crash.cpu}" if run.crash is not None and shut_down else ""
    return f"guest: {ending_text(run)}{cpu} after {run.seconds:.2f} s, {processor}: {run.why}"


def report(run: Result, width: Width = PLAIN) -> list[str]:
    """Return the report of a run that failed."""
    lines = evidence(run, width)
    lines += outcome(run, width)
    if run.error is not None:
        lines += str(run.error).splitlines()
    if run.counts:
        counts = ", ".join(f"{row.times:,} {row.vector.mnemonic}" for row in run.counts)
        lines += fold_line(f"recorded{_where(run)}: {counts}", "", width)
    return [printable(line) for line in lines + notes(run, width)]


def screen(run: Result, *, wanted: bool) -> list[str]:
    """Return the last screen, if it is wanted, or if the console stayed empty and more is on it than a BIOS writes."""
    by_itself = not run.console and any(line and not _OF_BIOS.match(line) for line in run.screen)
    if not (by_itself or (wanted and run.screen)):
        return ["the screen is empty, or was not in text mode, or QEMU had ended"] if wanted else []
    return ["the screen", *(f"  | {line}".rstrip() for line in run.screen), ""]


def evidence(run: Result, width: Width) -> list[str]:
    """Return the last exceptions, newest last, the state of the guest, and the explanation."""
    titles = _TITLES.get(run.ending, Titles())
    lines: list[str] = []
    if run.recorded or run.ending is Ending.SHUTDOWN:
        lines.append(titles.last)
    for line in last_exceptions(run):
        lines += fold_line(line, "  ", width)
    if not run.recorded and run.ending is Ending.SHUTDOWN:
        hint = ": run it again with --exceptions all" if run.where is None else _where(run)
        lines += fold_line(f"none was recorded{hint}", "  ", width)
    if run.crash is not None:
        lines += crash(titles.where, run.crash)
    if run.explanation is not None:
        lines += explanation(titles.why, run.explanation, width)
    for each in run.unreturned:
        if each.explanation is not None:
            cpu = f" on CPU {each.record.vcpu}" if each.record.vcpu else ""
            title = f"record {each.record.seq}{cpu}, {_RETURNED.get(run.ending, 'which it never came back from')}"
            lines += explanation(title, each.explanation, width)
    return lines


def in_handler(run: Result) -> str | None:
    """Return in whose handler a guest ended, in a sentence; None: in none that is known."""
    if not run.unreturned:
        return None
    names = [each.record.vector.mnemonic for each in run.unreturned]
    if run.ending is Ending.SHUTDOWN:
        return f"the guest was in its handler of {names[-1]}, the first exception that it never came back from"
    text = f"the guest {_DID.get(run.ending, 'was')} in its handler of {names[0]}"
    return text if len(names) == 1 else f"{text}; the first that it never came back from is {names[-1]}"


def last_exceptions(run: Result) -> list[str]:
    """Return a line for each of the last exceptions, after the first that the guest never came back from.

    Those in a row that differ in registers alone are one line, xN; where up to four take turns, each is one line.
    """
    records = list(run.last())
    kinds = [_kind(record) for record in records]
    lines, at = [], 0
    while at < len(records):
        turn, times = _turns(kinds, at)
        least = "at least " if not at and run.recorded > len(records) else ""
        suffix = f"  {least}x{times}{' in turn' if turn > 1 else ''}" if times > 1 else ""
        lines += [f"{record}{suffix}" for record in records[at : at + turn]]
        at += turn * times
    shown = lines[-_SHOWN:]
    first = run.unreturned[-1].record if run.unreturned else None
    if first is not None and str(first) not in " ".join(shown):
        shown.insert(0, f"{first}  the first that it never came back from")
    return shown


def _turns(kinds: list[tuple[object, ...]], at: int) -> tuple[int, int]:
    """Return how many exceptions take turns from a place on, and how often: (1, 1) where none does."""
    for turn in range(1, _TURNS + 1):
        times = 1
        while kinds[at : at + turn] == kinds[at + turn * times : at + turn * (times + 1)]:
            times += 1
        if times > (1 if turn == 1 else 2):
            return turn, times
    return 1, 1


def _kind(record: ExceptionRecord) -> tuple[object, ...]:
    kept = record.vector, record.error_code, record.address, record.cs, record.rip, record.cpl
    return (*kept, record.vectoring, record.outcome, record.injected, record.synthesized)


def outcome(run: Result, width: Width) -> list[str]:
    """Return how a run ended, and what was wrong with it."""
    lines = fold_line(headline(run), "", width)
    if (sentence := in_handler(run)) is not None:
        lines += fold_line(sentence, "", width)
    for finding in run.findings:
        lines += fold_line(finding, "", width)
    for violation in run.violations:
        lines += fold_line(f"rule {violation.rule}: {violation.message}", "", width)
    for stop in run.unreached:
        lines += fold_line(f"stop {stop}: not raised", "", width)
    if run.detail and run.ending is Ending.EXCEPTION:
        lines += fold_line(run.detail, "", width)
    if run.detail and run.ending is Ending.FAILED and run.error is None:
        lines += run.detail.splitlines()
    return lines


def notes(run: Result, width: Width) -> list[str]:
    """Return warnings, and hints about devices and symbols."""
    lines = []
    for each in (*run.warnings, *run.hints):
        lines += fold_line(each, "", width)
    for name in run.unplaced:
        text = f"{name} was not used: no Linux kernel of these symbols was found in the guest; give its slide as @SLIDE"
        lines += fold_line(text, "", width)
    return lines


def costs(run: Result, width: Width) -> list[str]:
    """Return how many exceptions were recorded, and what that cost."""
    return fold_line(
        f"{counted(run.recorded, 'exception')} recorded{_where(run)}; "
        f"{counted(run.exits, '#VMEXIT')} handled in Python; "
        f"guest stopped for {run.stopped_seconds * 1000:,.1f} ms ({run.stopped_seconds / run.seconds:.1%})",
        "",
        width,
    )


def crash(title: str, context: CrashContext) -> list[str]:
    """Return the state of a guest, its code with the instruction marked, then its callers, or else its stack."""
    registers = context.registers
    where = title if context.cpu is None else f"{title} on CPU {context.cpu}"
    digits = {16: 5, 32: 8, 64: 16}[context.bits]
    name = "code" if context.symbol is None else f"code, in {context.symbol}"
    state = f"interrupts {'on' if registers.rflags & RFLAGS.IF else 'off'}{', in HLT' if context.halted else ''}"
    lines = [
        f"{where}  cpl {registers.cpl}  {registers.cs.selector:04x}:{registers.rip:016x}  rsp {registers.rsp:#x}",
        f"  {mode(registers.save)}, {paging(registers.save)}, {state}",
        "  " + "  ".join(f"{name} {getattr(registers, name):#x}" for name in _CONTROL),
        f"  {_table('idt', registers.idtr)}  {_table('gdt', registers.gdtr)}  tr {registers.tr.selector:#x}",
        "",
        name if context.code else f"{name}: nothing is mapped at {context.address:#x}",
    ]
    for line in context.code:
        mark = "->" if line.address == context.address else "  "
        data = line.data[:_BYTES].hex() + (".." if len(line.data) > _BYTES else "")
        lines.append(f"{mark}{line.address:0{digits}x}  {data:<18}  {line.text}")
    if context.callers:
        is_guess = any(frame.guessed for frame in context.callers)
        lines.append(f"called from{', by frame pointers: a guess' if is_guess else ''}")
        lines += [f"  {frame.address:0{digits}x}  {frame.symbol or ''}".rstrip() for frame in context.callers]
    else:
        lines.append(f"stack at {context.stack_address:#x}" if context.stack else "stack: not mapped")
        lines += [f"  {row}" for row in _stack(context)]
    return [*lines, ""]


def explanation(title: str, found: Explanation, width: Width) -> list[str]:
    """Return the first exception, a line for each delivery, the outcome, then causes and repair."""
    lines = [title]
    for start, text in found.paragraphs():
        lines += fold(text, start, width.prose, "     " if start == "  " else None)
    return [*lines, ""]


def _table(name: str, register: Segment) -> str:
    return f"{name} {register.base:#x} limit {register.limit:#x}"


def _where(run: Result) -> str:
    """Return the condition on what was recorded, to follow "recorded"."""
    return "" if run.where is None else f" where {' '.join(run.where.split())}"


def _stack(context: CrashContext) -> Iterator[str]:
    """Yield the values at the stack pointer, then those that are addresses of code, with their symbols."""
    width = context.bits // 4
    values = [entry.value for entry in context.stack[:_VALUES]]
    row = 64 // (width + 1)
    for at in range(0, len(values), row):
        yield " ".join(f"{value:0{width}x}" for value in values[at : at + row])
    for entry in context.stack:
        if entry.symbol is not None:
            yield f"{entry.value:0{width}x} may be {entry.symbol}"
