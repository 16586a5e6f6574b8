"""Ctrl-C while Unicorn runs in the main thread: Python would raise inside a callback, which cannot raise."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeAlias

_Handler: TypeAlias = Callable[[int, FrameType | None], object]

_SIGINT: Final = signal.SIGINT


class DeferredSigint:
    """Puts SIGINT off until Unicorn has stopped, as long as it is open; then the handler from before has its turn."""

    def __init__(self, stop: Callable[[], None], running: Callable[[], bool]) -> None:
        """`stop` stops Unicorn; `running` returns whether it runs."""
        self._stop, self._running = stop, running
        self.pending = False
        """A signal came and waits for `take`."""
        self._before: _Handler | None = None
        handler = signal.getsignal(_SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._before = handler
            signal.signal(_SIGINT, self._note)

    def take(self) -> None:
        """Do what the signal asks for, as a rule raise KeyboardInterrupt."""
        self.pending = False
        assert self._before is not None
        self._before(_SIGINT, None)

    def close(self) -> None:
        """Put the handler back, unless there is another one by now.

        From another thread than the main one it stays, and hands signals on.
        """
        ours = self._before is not None and signal.getsignal(_SIGINT) == self._note
        if ours and threading.current_thread() is threading.main_thread():
            signal.signal(_SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        assert self._before is not None
        if not self._running():
            self._before(number, frame)
        else:
            self.pending = True
            self._stop()
