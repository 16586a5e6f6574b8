"""The tools that read traces: `explain`, `exceptions`, `diff` and `import_log`."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from trapline.asm.disassembler import instruction
from trapline.errors import UsageError
from trapline.explain.stored import evidence_of, explainable
from trapline.explain.unexplained import Unexplained
from trapline.report import difference
from trapline.session.convert import write_pieces
from trapline.session.output import OutputFile
from trapline.session.symbols import placed_names
from trapline.symbols import Names
from trapline.symbols.loaded import LoadedImages
from trapline.trace import qemu_log
from trapline.trace.diff import By, compare
from trapline.trace.files import Trace, open_trace
from trapline.trace.files.json_rows import joined
from trapline.trace.files.jsonl import pieces_of
from trapline.trace.files.writer import format_of
from trapline.trace.in_memory import InMemory
from trapline.trace.questions import groups, totals
from trapline.trace.questions.rows import rows
from trapline.trace.reading import Reading
from trapline.trace.selection import read_choice
from trapline.trace.stored import Metadata
from trapline.typed import integer, shortened

from .answers import DiffAnswer, ExceptionsAnswer, ExplainAnswer, Group, ImportAnswer, NextStep, Why
from .files import Files
from .machines import Held, Machines
from .small import page
from .stored import Runs, Stored
from .threads import Work
from .told import raised, why

Records: TypeAlias = Reading | InMemory

_AT_ONCE: Final = 128
"""Records that are made for a page."""
_MOST: Final = 1 << 62


class Filters(NamedTuple):
    """Which exceptions of a trace."""

    exceptions: str | None = None
    where: str | None = None
    function: str | None = None
    process: str | None = None
    first: str | None = None
    until: str | None = None


def explain(
    work: Work, runs: Runs, files: Files, trace: str, symbols: Sequence[str], limit: int, cursor: str | None
) -> ExplainAnswer:
    """Explain what a trace has evidence of. Raises UsageError."""
    path = runs.trace(trace)
    names = placed_names([files.symbols(each) for each in symbols])
    skipped, outcomes = _number(cursor), set[str]()
    with open_trace(path) as opened:
        explained = _explained(work, opened, names, outcomes)
        shown, more = page(islice(explained, skipped, None), limit)
    findings = [] if cursor else runs.findings(trace)
    return ExplainAnswer(
        trace=trace,
        explanations=shown,
        findings=findings,
        note=None if shown or skipped or findings else _nothing(outcomes),
        next_cursor=f"{skipped + len(shown)}" if more else None,
    )


def explain_held(held: Held) -> ExplainAnswer:
    """Explain where a held machine is stopped."""
    explanation = held.target.explain()
    number = held.stored.number
    return ExplainAnswer(
        trace=number,
        explanations=[] if explanation is None else [why("where it is stopped", explanation)],
        findings=[],
        note="The machine is held at neither an exception nor a shutdown." if explanation is None else None,
    )


def _opened(runs: Runs, machines: Machines, trace: str, filters: Filters, last: int | None = None) -> Records:
    choice, machine = read_choice(*filters), machines.recorded(trace)
    return Reading([runs.trace(trace)], choice, last) if machine is None else InMemory(machine.exceptions, choice, last)


def _explained(work: Work, trace: Trace, names: Names, outcomes: set[str]) -> Iterator[Why]:
    unexplained, images = Unexplained(), LoadedImages(names)
    for each in explainable(evidence_of(trace, outcomes)):
        work.check()
        images.place(each.images)
        yield why(each.title, each.explanation(names.text, instruction, unexplained), each.record)


def _nothing(outcomes: set[str]) -> str:
    if outcomes & {"combined", "shutdown"}:
        return (
            "The trace has a double or triple fault, but no evidence to explain it: an imported log has none. Run the "
            "guest with the tool run."
        )
    return "The trace has no double or triple fault, and no exception that the guest never came back from."


def exceptions(
    work: Work,
    runs: Runs,
    machines: Machines,
    trace: str,
    filters: Filters,
    last: int | None,
    registers: bool,
    limit: int,
    cursor: str | None,
) -> ExceptionsAnswer:
    """Return a page of the exceptions of a trace. Raises UsageError."""
    total = None
    if cursor is None:
        with _opened(runs, machines, trace, filters, last) as records:
            total = _total(work, records, filters, last)
    else:  # all from there on are among the last
        filters, last = filters._replace(first=f"{_number(cursor)}"), None
    with _opened(runs, machines, trace, filters, last) as records:
        records.watch(work.check)
        found = (
            raised(row, row.outcome, row.registers) for row in rows(records, registers=registers, at_once=_AT_ONCE)
        )
        shown, more = page(found, limit)
    following = f"{shown[-1].seq + 1}" if more else None
    return ExceptionsAnswer(trace=trace, total=total, exceptions=shown, next_cursor=following)


def _total(work: Work, records: Records, filters: Filters, last: int | None) -> int:
    if filters == Filters() and last is None and records.count is not None:
        return records.count
    records.watch(work.check)
    return sum(batch.num_rows for batch in records.batches(("seq",)))


def grouped(
    work: Work,
    runs: Runs,
    machines: Machines,
    trace: str,
    filters: Filters,
    last: int | None,
    by: str,
    limit: int,
    cursor: str | None,
) -> ExceptionsAnswer:
    """Return a page of the groups of exceptions, those with the most first. Raises UsageError."""
    skipped = _number(cursor)
    with _opened(runs, machines, trace, filters, last) as records:
        records.watch(work.check)
        counted = groups.groups(records, groups.read_keys(by), limit=skipped + limit + 1)
    found = (
        Group(
            keys={name: groups.written(name, value) for name, value in zip(counted.values, each.values, strict=True)},
            count=each.times,
            first=each.first,
            last=each.last,
        )
        for each in counted.groups[skipped:]
    )
    shown, more = page(found, limit)
    return ExceptionsAnswer(
        trace=trace,
        total=counted.total,
        distinct=counted.distinct,
        groups=shown,
        next_cursor=f"{skipped + len(shown)}" if more else None,
    )


def diff(
    work: Work, runs: Runs, machines: Machines, a: str, b: str, filters: Filters, by: str, state: bool
) -> DiffAnswer:
    """Compare two traces. Raises UsageError."""
    with _opened(runs, machines, a, filters) as one, _opened(runs, machines, b, filters) as other:
        one.watch(work.check)
        other.watch(work.check)
        found = compare(one, other, by=By(by), state=state)
    return DiffAnswer(
        same=found.same,
        summary=difference.summary(found),
        common=found.common,
        new=found.new,
        gone=found.gone,
        moved=found.moved,
        changed=found.changed,
        text=list(difference.text(found)),
        counts=difference.document(found)["counts"],
    )


def import_log(work: Work, runs: Runs, files: Files, stored: Stored, symbols: Sequence[str]) -> ImportAnswer:
    """Keep the exceptions of a log of `qemu -d int,cpu_reset` as a trace. Raises UsageError."""
    try:
        log = files.find(stored.guest)
        names = placed_names([files.symbols(each) for each in symbols])
        pieces = pieces_of(joined(_of_log(work, stored.guest, log, names)))
        count = write_pieces(
            pieces, Metadata(registers=False), OutputFile("-o", stored.path, force=False), format_of(stored.path)
        )
    except BaseException:
        runs.drop(stored)
        raise
    with Reading([stored.path]) as records:
        found = totals.totals(records)
        counted = totals.document(found, totals.rate_of(records.metadata))["vectors"]
    step = NextStep(tool="exceptions", arguments={"trace": stored.number, "last": 16}, why="shows the last ones")
    return ImportAnswer(run=stored.number, recorded=count, counts=counted, next=[step])


def _of_log(work: Work, name: str, path: str, names: Names) -> Iterator[str]:
    try:
        with Path(path).open("rb") as log:
            for line in qemu_log.records(qemu_log.log_lines(log), names.lookup if names.files else None):
                work.check()
                yield line
    except OSError as error:
        raise UsageError(f"{shortened(name)}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"{shortened(name)}: {error}") from error


def _number(cursor: str | None) -> int:
    return 0 if cursor is None else integer(cursor, "cursor", 0, _MOST)
