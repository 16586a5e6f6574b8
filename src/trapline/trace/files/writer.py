"""What writes a trace in one format, and which format a file's name asks for."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol, TypeAlias

from trapline.errors import MissingExtra, UsageError
from trapline.trace.column import Columnar
from trapline.trace.stored import Metadata


class Note(NamedTuple):
    """A piece of evidence among records."""

    place: int
    """How many of the records come before it."""
    line: str
    """As JSON, with its newline."""


class Writer(Protocol):
    """Writes a trace to a file that somebody else opens and closes. Methods raise OSError where it cannot be written.

    After an error only `abandon` is called; what was flushed before can be read.
    """

    def begin(self, metadata: Metadata) -> None:
        """Begin the file."""

    def write(self, columns: Columnar, notes: Sequence[Note]) -> None:
        """Take the next records, with the evidence that was noted among them, in the order of places."""

    def flush(self) -> None:
        """Write what was taken, so that it can be read even if the process is killed: called each second."""

    def close(self) -> None:
        """Complete the file."""

    def abandon(self) -> None:
        """Leave the file as it is, for it cannot be written."""


Make: TypeAlias = Callable[[BinaryIO, BinaryIO | None], Writer]


class Format(NamedTuple):
    """A format of trace files."""

    suffix: str
    made_by: str
    """The module and the function that makes the writer of a file, and of its `.part` if it has one."""
    libraries: tuple[str, ...]
    """What it needs of the extra `trace`."""
    has_part: bool = False
    """Until it is complete, another file has what can be read: see `PART`."""

    def check(self) -> None:
        """Raise MissingExtra unless its libraries are installed. Loads none of them."""
        for library in self.libraries:
            if sys.modules.get(library, library) is None or find_spec(library) is None:
                raise MissingExtra(library, "trace")

    def make(self, file: BinaryIO, part: BinaryIO | None = None) -> Writer:
        """Return what writes a file."""
        module, _, name = self.made_by.partition(":")
        make: Make = getattr(import_module(module, __package__), name)
        return make(file, part)


PART: Final = ".part"
"""Ends the name of the file that has the records of a Parquet file until that is complete."""
LINES: Final = Format(".jsonl", ".json_writer:lines_writer", ())
FORMATS: Final = (
    LINES,
    Format(".jsonl.zst", ".json_writer:compressed_writer", ("zstandard",)),
    Format(".arrow", ".arrow_writer:arrow_writer", ("pyarrow",)),
    Format(".parquet", ".parquet_writer:parquet_writer", ("pyarrow",), has_part=True),
)
VIEWS: Final = (Format(".pftrace", ".perfetto_writer:perfetto_writer", ()),)
"""Formats for other programs, which `open_trace` does not read."""
_OTHERS: Final = (".json", ".log", ".txt", "")
"""Suffixes of JSON lines as well."""


def format_of(name: str | os.PathLike[str]) -> Format:
    """Return the format that a file's name asks for: JSON lines without a suffix. Raises UsageError for another one."""
    path = Path(name)
    found = [each for each in (*FORMATS, *VIEWS) if path.name.lower().endswith(each.suffix)]
    if found:
        return found[-1]
    if path.suffix.lower() not in _OTHERS:
        known = ", ".join(each.suffix for each in (*FORMATS, *VIEWS))
        raise UsageError(f"{os.fspath(name)}: there is no format {path.suffix}; a trace is written as {known}")
    return LINES
