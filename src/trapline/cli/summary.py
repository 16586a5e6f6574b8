"""What a run prints at its end, for people, on stderr."""

from typing import IO, Final

from trapline.report.run import Ending, Place, Run

from .crash import print_crash
from .explanation import print_explanation
from .table import print_table
from .wrap import print_line

_SHOWN: Final = 12
"""How many exceptions the report of a crash shows."""
_TITLES: Final = {
    Ending.SHUTDOWN: ("triple fault: the last exceptions, newest last", "at the shutdown", "why it shut down"),
    Ending.RULE: ("the last exceptions, newest last", "where the rule stopped it", "why it was raised"),
}
_PROCESSORS: Final = {"unicorn": "in this process, on Unicorn", "qemu": "on QEMU"}


def print_summary(run: Run, file: IO[str]) -> None:
    """Print how the guest ended, what led to a crash, and the counts."""
    print(file=file)
    if run.crash is not None:
        _print_crash(run, file)
    processor = _PROCESSORS.get(run.processor, f"on {run.processor}")
    print_line(f"guest: {_ending(run)} after {run.seconds:.2f} s, {processor}: {run.why}", "", file)
    for violation in run.violations:
        print_line(f"rule {violation.rule}: {violation.message}", "", file)
    if run.detail and run.ending is Ending.FAILED and run.error is None:
        print(run.detail, file=file)
    if run.counts:
        print_table(
            ("exception", "count", "per second", "first at", "last at"),
            [
                (
                    f"{row.vector.mnemonic} ({row.vector})",
                    f"{row.times:,}",
                    f"{row.times / run.seconds:,.0f}",
                    _place(row.first),
                    _place(row.last),
                )
                for row in run.counts
            ],
            right=(1, 2),
            file=file,
        )
    for hint in run.hints:
        print_line(hint, "", file)
    for name in run.unplaced:
        print_line(f"{name} named nothing: no such Linux kernel was seen to run (@SLIDE says where it is)", "", file)
    print_line(
        f"{run.recorded:,} {'exception' if run.recorded == 1 else 'exceptions'} recorded; {run.exits:,} "
        f"{'#VMEXIT' if run.exits == 1 else '#VMEXITs'} handled in Python; guest stopped for "
        f"{run.stopped_seconds * 1000:,.1f} ms ({run.stopped_seconds / run.seconds:.1%})",
        "",
        file,
    )


def _ending(run: Run) -> str:
    if run.ending is Ending.DEBUG_EXIT and run.exit_value is not None:
        return f"debug exit with {run.exit_value:#x}"
    return run.ending.value


def _place(place: Place) -> str:
    """Return an address for a narrow column: its name, with file and line below, or else the number."""
    symbol = place.symbol
    if symbol is None:
        return f"{place.rip:#x}"
    return symbol.place if symbol.source is None else f"{symbol.place}\n{symbol.source}"


def _print_crash(run: Run, file: IO[str]) -> None:
    """The exceptions that led to a crash, newest last, the state, and the explanation."""
    assert run.crash is not None
    last, where, why = _TITLES[run.ending]
    print(last, file=file)
    for record in run.last(_SHOWN):
        print_line(str(record), "  ", file)
    if not run.recorded:
        print("  none was recorded: run it again with --exceptions all", file=file)
    print_crash(where, run.crash, file)
    if run.explanation is not None:
        print_explanation(why, run.explanation, file)
