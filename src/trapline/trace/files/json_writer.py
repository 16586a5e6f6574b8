"""Writes JSON lines, plain or as frames of zstd."""

from collections.abc import Sequence
from typing import BinaryIO, Final, Protocol

from trapline.trace.column import Columnar
from trapline.trace.json_block import json_block
from trapline.trace.stored import Metadata, run_line

from .writer import Note, Writer


class Sink(Protocol):
    """A file that is written."""

    def write(self, data: bytes, /) -> int:
        """Write all of the data."""

    def flush(self) -> None:
        """Let it be read."""


class LinesWriter:
    """Writes JSON lines (`writer.Writer`)."""

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._registers = True

    def begin(self, metadata: Metadata) -> None:
        """See `writer.Writer`."""
        self._registers = metadata.registers
        self._file.write(run_line(metadata))

    def write(self, columns: Columnar, notes: Sequence[Note]) -> None:
        """See `writer.Writer`."""
        block = json_block(columns, registers=self._registers)
        if not notes:
            self._file.write(block)
            return
        lines, written = block.splitlines(keepends=True), 0
        for place, line in notes:
            self._file.write(b"".join(lines[written:place]))
            self._file.write(line.encode())
            written = place
        self._file.write(b"".join(lines[written:]))

    def flush(self) -> None:
        """See `writer.Writer`."""
        self._file.flush()

    def close(self) -> None:
        """See `writer.Writer`."""
        self._file.flush()

    def abandon(self) -> None:
        """See `writer.Writer`."""


def lines_writer(file: BinaryIO, part: BinaryIO | None) -> Writer:
    """Return what writes plain lines."""
    return LinesWriter(file)


def compressed_writer(file: BinaryIO, part: BinaryIO | None) -> Writer:
    """Return what writes lines as frames of zstd, one for each second."""
    return LinesWriter(_Frames(file))


class _Frames:
    """Compresses what is written; a flush ends a frame."""

    _LEVEL: Final = 3

    def __init__(self, file: BinaryIO) -> None:
        from zstandard import ZstdCompressor

        self._file = file
        self._compressor = ZstdCompressor(self._LEVEL, write_checksum=True)
        self._frame = self._compressor.compressobj()
        self._begun = False

    def write(self, data: bytes, /) -> int:
        self._begun = True
        self._file.write(self._frame.compress(data))
        return len(data)

    def flush(self) -> None:
        if self._begun:
            self._file.write(self._frame.flush())
            self._frame, self._begun = self._compressor.compressobj(), False
        self._file.flush()
