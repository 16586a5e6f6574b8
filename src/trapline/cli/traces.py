"""Opens the traces that a command names, with its filters, and shows how far the reading is."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from trapline.report.tables import Table
from trapline.session.clash import File, check_streams
from trapline.trace.reading import Reading
from trapline.trace.selection import read_choice

from .table import print_table
from .terminal import tell

_PATIENCE: Final = 0.5
"""Seconds after which the progress is shown."""


@contextlib.contextmanager
def reading(options: argparse.Namespace) -> Iterator[Reading]:
    """Open the files of a command. Raises UsageError and MissingExtra."""
    choice = read_choice(
        options.exceptions, options.where, options.function, options.process, options.first, options.until
    )
    files = ["/dev/stdin" if name == "-" else name for name in options.files]
    with Reading(files, choice, options.last) as records:
        check_streams([File("the trace", run.path) for run in records.runs], ())
        with contextlib.ExitStack() as stack:
            if sys.stderr.isatty():
                progress = _Progress(records.count)
                stack.callback(progress.close)
                records.watch(progress.seen)
            yield records


def described(records: Reading) -> str:
    """Return what the records are of, in a line."""
    about = records.metadata
    if len(records.runs) > 1:
        return f"{len(records.runs):,} traces"
    parts = [records.runs[0].name]
    if about.guest is not None:
        parts.append(f"guest {about.guest}")
    if about.processor is not None:
        parts.append(f"on {about.processor}")
    return ", ".join(parts)


def print_answer(records: Reading, total: int, table: Table) -> None:
    """Print how many records were chosen, and a table."""
    tell(f"{described(records)}: {total:,} exception{'s' * (total != 1)}")
    if not total:
        return
    print()
    print_table(table.heads, table.rows, right=table.right)
    if table.note is not None:
        tell(f"\n{table.note}")


class _Progress:
    """A bar on stderr, once a reading takes long."""

    def __init__(self, total: int | None) -> None:
        self._total, self._seen = total, 0
        self._since = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def seen(self, records: int) -> None:
        """Take the number of records that were read."""
        self._seen += records
        if self._bar is None and time.monotonic() > self._since + _PATIENCE:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._seen)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._since = float("inf")
