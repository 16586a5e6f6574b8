"""Frames of zstd one after the other; the last one may be cut off, by a run that was killed."""

import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from zstandard import ZstdDecompressor, ZstdError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_WINDOW: Final = 1 << 23
"""The largest window that is decompressed, in bytes: what RFC 8878, 3.1.1.1.2 recommends to support."""


class FramesReader(io.RawIOBase):
    """What is compressed in a file of zstd frames, up to where it is cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reader = self._begin()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read some bytes. Raises ValueError for what is not zstd."""
        try:
            return int(self._reader.readinto(buffer))
        except ZstdError as error:
            raise ValueError(str(error)) from error

    def seekable(self) -> bool:
        """Return whether it can be read again, from the start."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go back to the start, the only place to go to."""
        if offset or whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only the start of compressed lines can be sought")
        self._file.seek(0)
        self._reader = self._begin()
        return 0

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._file.close()

    def _begin(self) -> Any:  # noqa: ANN401  # of a library without hints
        decompressor = ZstdDecompressor(max_window_size=_WINDOW)
        return decompressor.stream_reader(self._file, read_across_frames=True, closefd=False)
