"""A thread that stops the CPU at the time of an alarm, and periodically for the sake of signals."""

import threading
import time
from collections.abc import Callable
from typing import Final

_BEAT: Final = 0.05
"""Seconds: Python handles Ctrl-C only between two calls of Unicorn."""
_REPEAT: Final = 0.001
"""Seconds: a stop before the CPU runs is lost, and so it is repeated until the alarm is another."""


class Pacemaker:
    """Calls `stop` at the time of `alarm`, and every beat."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._alarm: float | None = None
        self._closed = False
        self._woken = False
        self.running = False
        """The CPU runs, and can be stopped."""
        self.unanswered = 0.0
        """For how many seconds it has been told to stop, and has not."""
        self._thread = threading.Thread(target=self._beat, name="pacemaker", daemon=True)
        self._thread.start()

    def set_alarm(self, at: float | None) -> None:
        """Stop the CPU at a time of `time.monotonic`, repeatedly until the alarm is another."""
        if at == self._alarm:
            return
        with self._changed:
            self._alarm = at
            self._changed.notify_all()

    def rest(self, seconds: float | None) -> None:
        """Let the caller sleep until `wake`, or for a time; a `wake` that was there before counts."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken, seconds)
            self._woken = False

    def wake(self) -> None:
        """End a `rest`, and stop the CPU."""
        with self._changed:
            self._woken = True
        self.set_alarm(0.0)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _beat(self) -> None:
        with self._changed:
            while not self._closed:
                left = _BEAT if self._alarm is None else min(_BEAT, self._alarm - time.monotonic())
                left = max(left, _REPEAT)
                self._changed.wait(left)
                if self.running:
                    self.unanswered += left
                    self._stop()
