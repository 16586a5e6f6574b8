"""Runs a guest in a thread of its own, so that one loop can wait for it and for a debugger's client."""

import queue
import signal
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

_T = TypeVar("_T")

LOOK: Final = 0.5
"""Seconds that a loop waits at most: then a signal is seen that came just before its wait, or to another thread."""
_DONE: Final = b"."
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Python handles signals in the main thread: it is to wake for them."""


class Runner(Generic[_T]):
    """A thread that does one piece of work at a time. `fileno` is readable when it is done.

    The guest costs nothing extra while it runs. Close it, or use it as a context manager, when nothing runs.
    """

    def __init__(self) -> None:
        """Start the thread."""
        self._work: queue.SimpleQueue[Callable[[], _T] | None] = queue.SimpleQueue()
        self._ours, self._theirs = socket.socketpair()
        self._result: list[_T] = []
        self._error: BaseException | None = None
        self.is_busy = False
        """Work was started, and its result is not taken yet."""
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)
        self._thread.start()

    def start(self, work: Callable[[], _T]) -> None:
        """Begin work, such as `lambda: target.resume()`; only after the result of the last one was taken."""
        assert not self.is_busy, "one piece of work at a time"
        self.is_busy = True
        self._work.put(work)

    def fileno(self) -> int:
        """Return a file descriptor that is readable when the work is done, for `selectors`."""
        return self._ours.fileno()

    def take(self) -> _T:
        """Wait until the work is done; return its result, or raise what it raised."""
        assert self.is_busy, "nothing was started"
        self._ours.recv(1, socket.MSG_PEEK)
        self.is_busy = False  # before the byte is gone: a signal may raise something in between
        self._ours.recv(1)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result.pop()

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._work.put(None)
        if not self.is_busy:
            self._thread.join()
            self._ours.close()
            self._theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        while (work := self._work.get()) is not None:
            try:
                self._result.append(work())
            except BaseException as error:  # noqa: BLE001  # `take` raises it
                self._error = error
            self._theirs.send(_DONE)
