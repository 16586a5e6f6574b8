"""A file of records that somebody reads meanwhile: a pipe, a socket or a terminal, whose reader may be slow."""

import contextlib
import errno
import io
import logging
import os
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .patient_file import AT_ONCE, takes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)

_SLICE: Final = 50
"""Milliseconds of one wait."""
_GRACE: Final = 1.0
"""Seconds that a reader has for the rest, once nobody waits for it any more."""


def is_stream(mode: int, descriptor: int | None = None) -> bool:
    """Return whether a file with this `st_mode` is read while it is written."""
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or (descriptor is not None and os.isatty(descriptor))


class Stream(io.RawIOBase):
    """Waits for the reader as long as the run lasts: not after its deadline, and not after `hurry`.

    What the reader has not taken by then is kept, and offered again when more is written and at the end.
    """

    def __init__(self, name: str, opener: Callable[[], int]) -> None:
        """`name` is for messages. `opener` returns the descriptor; ENXIO: a FIFO has no reader yet, ask again."""
        self.name = name
        self.unit = "line"
        """What is not written is told in lines or in bytes."""
        self.deadline: float | None = None
        """On the clock of `time.monotonic`; None: the reader has all the time."""
        self._opener = opener
        self._descriptor: int | None = None
        self._pending = bytearray()
        self._hurried = False
        self._is_ready(0)

    def begin(self, deadline: float | None) -> None:
        """Wait for the reader again, until a deadline."""
        self.deadline, self._hurried = deadline, False

    def hurry(self) -> None:
        """Wait no longer: the run is to end. May be called from another thread or a signal handler."""
        self._hurried = True

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Take all of the data, and return its size in bytes. Raises OSError where the reader is gone."""
        before = len(self._pending)
        self._pending += memoryview(data).cast("B")
        size = len(self._pending) - before
        try:
            while self._pending:
                waits = self._waits()
                if not self._send(_SLICE if waits else 0) and not waits:
                    break
        except KeyboardInterrupt:
            self._hurried = True
            raise
        return size

    def close(self) -> None:
        """Offer the rest, and close the file; what the reader does not take is told as a warning."""
        if self.closed:
            return
        try:
            with contextlib.suppress(OSError):
                self._offer()
        finally:
            super().close()
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            left = self._pending.count(b"\n") if self.unit == "line" else len(self._pending)
            self._pending = bytearray()
            if left:
                what = f"the last {self.unit} was" if left == 1 else f"the last {left:,} {self.unit}s were"
                log.warning("%s: %s not written, for nobody read them in time", self.name, what)

    def _offer(self) -> None:
        last = time.monotonic()
        while self._pending and (self._waits() or time.monotonic() < last + _GRACE):
            if self._send(_SLICE):
                last = time.monotonic()

    def _waits(self) -> bool:
        return not self._hurried and (self.deadline is None or time.monotonic() < self.deadline)

    def _send(self, milliseconds: int) -> bool:
        """Write a piece, if the reader takes one within this time."""
        if not self._is_ready(milliseconds):
            return False
        assert self._descriptor is not None
        try:
            del self._pending[: os.write(self._descriptor, self._pending[:AT_ONCE])]
        except BlockingIOError:
            return False
        except OSError:
            self._pending.clear()  # nobody will take it
            raise
        return True

    def _is_ready(self, milliseconds: int) -> bool:
        if self._descriptor is None:
            try:
                self._descriptor = self._opener()
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                time.sleep(milliseconds / 1000)
                return False
        return takes(self._descriptor, milliseconds)
