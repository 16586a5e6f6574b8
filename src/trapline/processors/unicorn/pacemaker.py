"""A thread that stops the CPU at the time of an alarm, and periodically for the sake of signals."""

import math
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
        self._until = math.inf
        """When the thread wakes by itself; infinity: that is being calculated."""
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
        self._alarm = at
        if at is not None and at < self._until:  # to wake a thread takes longer than most turns of a CPU
            with self._changed:
                self._changed.notify_all()

    def rest(self, seconds: float | None) -> None:
        """Let the caller sleep until `wake`, or for a time; a `wake` that was there before counts."""
        with self._changed:
            self._changed.wait_for(lambda: self._woken, seconds)
            self._woken = False

    def wake(self) -> None:
        """End a `rest`, and stop the CPU."""
        self.set_alarm(0.0)
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _beat(self) -> None:
        with self._changed:
            beat = time.monotonic() + _BEAT
            while not self._closed:
                self._until = math.inf  # before the alarm is read: `set_alarm` writes it before it reads this
                alarm = self._alarm
                wanted, now = beat if alarm is None else min(beat, alarm), time.monotonic()
                left = max(wanted - now, _REPEAT)
                self._until = now + left
                self._changed.wait(left)
                now = time.monotonic()
                alarm = self._alarm
                if self.running and now >= (beat if alarm is None else min(beat, alarm)):
                    self.unanswered += left
                    self._stop()
                if now >= beat:
                    beat = now + _BEAT
