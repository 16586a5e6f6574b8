"""A file whose reader may stall: a pipe, a terminal, a socket. A write waits for it, but not for ever."""

import errno
import io
import os
import select
import stat
import time
from typing import IO, Any, Final

_LOOK: Final = 100
"""Milliseconds between two looks at the time."""
AT_ONCE: Final = select.PIPE_BUF
"""Bytes that a pipe takes at once when it takes any (poll(2), pipe(7))."""


def takes(descriptor: int, milliseconds: int) -> bool:
    """Return whether a file has room for a piece, `AT_ONCE`, within this time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))


class PatientFile(io.FileIO):
    """Writes what its reader has room for. Use it like `io.FileIO`."""

    limit: float | None = None
    """The time of `time.monotonic` from which on a write fails instead of waiting; None: it waits."""

    def write(self, data: Any, /) -> int:  # noqa: ANN401  # as in the base class
        """Write some of `data`, and return how many bytes. Raises OSError after `limit`."""
        if stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            return super().write(data)
        while not takes(self.fileno(), _LOOK):
            if self.limit is not None and time.monotonic() >= self.limit:
                raise OSError(errno.ETIMEDOUT, "its reader does not read")
        return super().write(memoryview(data)[:AT_ONCE])


def patient(stream: IO[bytes]) -> IO[bytes]:
    """Return what writes to the file of a stream without its buffer; the stream itself where it has no file."""
    try:
        stream.flush()
        return PatientFile(stream.fileno(), "w", closefd=False)
    except io.UnsupportedOperation:
        return stream
