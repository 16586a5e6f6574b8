"""The summary of a run, as text on stderr."""

from typing import IO

from trapline.report import text
from trapline.report.result import Ending, Place
from trapline.report.run import Run

from .table import print_table
from .terminal import tell, width_of


def print_summary(run: Run, file: IO[str], *, screen: bool) -> None:
    """Print the screen if it is wanted, how the guest ended, the evidence of a crash, and the counts."""
    width = width_of(file)
    print(file=file)
    if lines := text.screen(run, wanted=screen):
        tell(*lines, file=file)
    if run.crash is not None or run.unreturned or run.ending is Ending.FAILED:
        tell(*text.evidence(run, width), file=file)
    tell(*text.outcome(run, width), file=file)
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
    tell(*text.notes(run, width), *text.costs(run, width), file=file)


def _place(place: Place) -> str:
    """Return an address for a narrow column: the symbol, with file and line below, or else the number."""
    symbol = place.symbol
    if symbol is None:
        return f"{place.rip:#x}"
    return symbol.place if symbol.source is None else f"{symbol.place}\n{symbol.source}"
