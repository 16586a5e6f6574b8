"""Writes what a trace has to another file, in the format that its name asks for."""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Final

from trapline.trace.files.trace import Piece
from trapline.trace.files.writer import Format
from trapline.trace.stored import Metadata

from .output import OutputFile

_FLUSHED: Final = 1 << 20
"""Records after which what is compressed is written."""


def write_pieces(
    pieces: Iterable[Piece],
    metadata: Metadata,
    file: OutputFile,
    form: Format,
    seen: Callable[[int], None] = lambda records: None,
) -> int:
    """Write pieces of a trace to a file that is not open yet, and return the number of records.

    An error in between completes the file, with what came before it; one before the first leaves it as it was. `seen`
    gets the number of records of each piece. Raises MissingExtra, and TraplineError where the file cannot be written.
    """
    form.check()
    writer = form.make(file.open_buffered())
    count, pieces = 0, iter(pieces)
    with file.writing():
        try:
            first = list(islice(pieces, 1))
            file.begin()
            try:
                writer.begin(metadata)
                for piece in chain(first, pieces):
                    writer.write(piece.columns, piece.notes)
                    if count // _FLUSHED < (count := count + piece.columns.size) // _FLUSHED:
                        writer.flush()
                    seen(piece.columns.size)
            finally:
                writer.close()
        except OSError:
            writer.abandon()
            file.give_up()
            raise
    return count
