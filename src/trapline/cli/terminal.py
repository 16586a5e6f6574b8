"""How wide lines on a terminal may be."""

import shutil
from typing import IO, Final

from trapline.report.fold import Width

_NARROWEST: Final = 60
_WIDEST: Final = 120


def width_of(file: IO[str]) -> Width:
    """Return where text in a file is folded: as the terminal is wide; lines of data only on a terminal."""
    width = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)
    return Width(width, width if file.isatty() else None)
