"""The guest's console in gdb's own window: text that waits until gdb takes it."""

import codecs
import socket
import threading
from collections.abc import Callable
from typing import Final

_PART: Final = 2048
"""Characters in a packet."""


class Console:
    """A sink for what the guest writes, from any thread; `fileno` is readable when there is something new."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._sink: Callable[[bytes], object] | None = None
        self._woken = False
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def __call__(self, data: bytes) -> None:
        """Take output of the guest."""
        with self._lock:
            if self._sink is not None:
                self._sink(data)
                return
            self._held.append(data)
            wake, self._woken = not self._woken, True
        if wake:
            self._theirs.send(b".")

    def fileno(self) -> int:
        """Return the file descriptor, for `selectors`."""
        return self._ours.fileno()

    def calm(self) -> None:
        """Take note that there is something new."""
        with self._lock:
            if self._woken:
                self._ours.recv(1)
                self._woken = False

    def take(self) -> list[str]:
        """Return the text since the last call, in parts that fit into a packet."""
        with self._lock:
            data = b"".join(self._held)
            self._held.clear()
        text = self._decoder.decode(data)
        return [text[at : at + _PART] for at in range(0, len(text), _PART)]

    def leave(self, sink: Callable[[bytes], object]) -> None:
        """Pass on what is held and what comes: gdb is gone, and the guest goes on."""
        with self._lock:
            sink(b"".join(self._held))
            self._held.clear()
            self._sink = sink

    def close(self) -> None:
        """Take no more."""
        self._ours.close()
        self._theirs.close()
