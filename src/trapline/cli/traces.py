"""Opens the traces that a command names, with its filters, and shows how far the reading is."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence

from trapline.report.counted import counted
from trapline.report.tables import Table
from trapline.session.clash import File, check_streams
from trapline.trace.reading import Reading
from trapline.trace.selection import Choice, read_choice

from .progress import progress
from .table import print_table
from .terminal import tell


@contextlib.contextmanager
def reading(options: argparse.Namespace) -> Iterator[Reading]:
    """Open the files of a command, and show how far each reading is. Raises UsageError and MissingExtra."""
    with opened(options, options.files) as records, progress(records.count) as seen:
        records.watch(seen)
        yield records


@contextlib.contextmanager
def opened(options: argparse.Namespace, names: Sequence[str]) -> Iterator[Reading]:
    """Open some files, with the filters of a command. Raises UsageError and MissingExtra."""
    choice = choice_of(options)
    files = ["/dev/stdin" if name == "-" else name for name in names]
    with Reading(files, choice, options.last) as records:
        check_streams([File("the trace", run.path) for run in records.runs], ())
        yield records


def choice_of(options: argparse.Namespace) -> Choice:
    """Read the filters of a command, but for `--last`. Raises UsageError."""
    return read_choice(
        options.exceptions, options.where, options.function, options.process, options.first, options.until
    )


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
    tell(f"{described(records)}: {counted(total, 'exception')}")
    if not total:
        return
    print()
    print_table(table.heads, table.rows, right=table.right)
    if table.note is not None:
        tell(f"\n{table.note}")
