"""Lines for a terminal: folded with the rest indented, without colour."""

import shutil
import textwrap
from typing import IO, Final

_NARROWEST: Final = 60
_WIDEST: Final = 120


def print_prose(text: str, start: str, file: IO[str], *, rest: str | None = None) -> None:
    """Print a sentence behind `start`, folded wherever it goes to; what is folded stands behind `rest`."""
    width = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * (len(start) or 2) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    print("\n".join(lines), file=file)


def print_line(text: str, start: str, file: IO[str]) -> None:
    """Print a line behind `start`: folded on a terminal, whole for who reads lines."""
    if file.isatty():
        print_prose(text, start, file, rest=start + "    ")
    else:
        print(f"{start}{text}", file=file)
