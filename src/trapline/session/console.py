"""The guest's console: what it writes is kept and passed on, and it can be written to."""

import socket
import threading
from collections.abc import Callable
from typing import IO, Final, TypeAlias

from trapline.errors import UsageError

Sink: TypeAlias = IO[bytes] | Callable[[bytes], object]

KEPT: Final = 16 << 20
"""Bytes of output that are kept: the last."""
_PIECE: Final = 1 << 16


class Console:
    """The host's end of the guest's first serial port."""

    def __init__(self, sink: Sink | None = None) -> None:
        """`sink` gets all that the guest writes, as it comes."""
        self._sink = sink if sink is None or callable(sink) else sink.write
        self._output = bytearray()
        self._dropped = 0
        self._changed = threading.Condition()
        self._send: Callable[[bytes], object] | None = None
        self._awaited: tuple[bytes, int, Callable[[], None]] | None = None

    @property
    def output(self) -> bytes:
        """What the guest wrote: the last `KEPT` bytes."""
        with self._changed:
            return bytes(self._output)

    def connect(self, send: Callable[[bytes], object]) -> None:
        """Let `write` reach the guest."""
        self._send = send

    def write(self, data: bytes) -> None:
        """Send bytes to the guest, which reads them from its serial port."""
        if self._send is None:
            raise UsageError("this guest's console cannot be written to")
        self._send(data)

    def take(self, data: bytes) -> None:
        """Take what the guest wrote; called by whoever runs it."""
        if self._sink is not None:
            self._sink(data)
        came = None
        with self._changed:
            self._output += data
            if len(self._output) > 2 * KEPT:
                self._dropped += len(self._output) - KEPT
                del self._output[:-KEPT]
            if self._awaited is not None:
                text, start, came = self._awaited
                if self._find(text, start) is None:  # what was searched is not searched again
                    self._awaited = text, max(start, self._dropped + len(self._output) - len(text) + 1), came
                    came = None
                else:
                    self._awaited = None
            self._changed.notify_all()
        if came is not None:
            came()

    def position(self) -> int:
        """Return how many bytes came so far: where what comes next will begin."""
        with self._changed:
            return self._dropped + len(self._output)

    def find(self, text: bytes, start: int) -> tuple[bytes, int] | None:
        """Return the output from position `start` up to and with `text`, and the position after it."""
        with self._changed:
            return self._find(text, start)

    def await_text(self, text: bytes, start: int, came: Callable[[], None]) -> None:
        """Call `came` once, from the thread that brings it, when `text` is in the output from `start` on."""
        with self._changed:
            there = self._find(text, start) is not None
            self._awaited = None if there else (text, start, came)
        if there:
            came()

    def forget_text(self) -> None:
        """Await nothing any more."""
        with self._changed:
            self._awaited = None

    def wait(self, text: bytes, start: int, seconds: float | None) -> bool:
        """Wait until `text` is in the output from `start` on, while another thread runs the guest."""
        with self._changed:
            return self._changed.wait_for(lambda: self._find(text, start) is not None, seconds)

    def _find(self, text: bytes, start: int) -> tuple[bytes, int] | None:
        begin = max(start - self._dropped, 0)
        at = self._output.find(text, begin)
        if at < 0:
            return None
        end = at + len(text)
        return bytes(self._output[begin:end]), self._dropped + end


class SocketReader:
    """A thread that brings a console what comes over a socket, until the other end is closed."""

    def __init__(self, connection: socket.socket, console: Console) -> None:
        self._connection = connection
        self._console = console
        self._thread = threading.Thread(target=self._read, name="console", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take what is still on the way, and end. The other end must be closed by now."""
        self._thread.join()
        self._connection.close()

    def _read(self) -> None:
        while True:
            try:
                data = self._connection.recv(_PIECE)
            except OSError:
                return
            if not data:
                return
            self._console.take(data)
