"""Tables on a terminal, drawn by rich."""

import sys
from collections.abc import Sequence
from typing import IO

from trapline.typed import printable


def load() -> None:
    """Load rich."""
    import rich.box
    import rich.console
    import rich.table  # noqa: F401  # only to load it


def print_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    file: IO[str] | None = None,
) -> None:
    """Print rows under heads; the columns in `right` are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    file = file or sys.stdout
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    Console(file=file, highlight=False, markup=False).print(table)
