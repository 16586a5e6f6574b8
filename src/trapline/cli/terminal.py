"""What goes to a terminal: without the control characters of files and guests, in lines of its width."""

import logging
import shutil
import sys
from typing import IO, Final

from trapline.report.fold import Width
from trapline.typed import printable

_NARROWEST: Final = 60
_WIDEST: Final = 120


def width_of(file: IO[str]) -> Width:
    """Return where text in a file is folded: as the terminal is wide; lines of data only on a terminal."""
    width = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)
    return Width(width, width if file.isatty() else None)


def tell(*lines: str, file: IO[str] | None = None) -> None:
    """Print lines of text, at once, with control characters escaped: names of symbols and files may have any."""
    print(printable("\n".join(lines)), file=file or sys.stdout, flush=True)


class PrintableFormatter(logging.Formatter):
    """Formats log messages in the same way."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a message."""
        return printable(super().format(record))
