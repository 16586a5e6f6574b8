"""The time of the machine: that of the host, or one that goes by the instructions that its CPUs execute."""

import ctypes
import time
from collections.abc import Callable
from typing import Final, NamedTuple

TICK: Final = 10
"""Nanoseconds of an instruction, where time goes by instructions."""


class Clock(NamedTuple):
    """A clock in nanoseconds."""

    now: Callable[[], int]
    started: int
    """What it showed when the machine was built: its time 0."""
    counts: bool = False
    """Time goes by instructions."""


def host_clock() -> Clock:
    """Return the clock of the host: `time.monotonic_ns`."""
    return Clock(time.monotonic_ns, time.monotonic_ns())


class InstructionCounter:
    """Counts the instructions of CPUs that take turns, of which each has a counter of its own."""

    def __init__(self) -> None:
        self._time = 0
        self._running = ctypes.c_uint64()
        """How many the CPU that executes has executed since `begin`."""

    @property
    def clock(self) -> Clock:
        """The clock that goes by them."""
        return Clock(self.now, 0, counts=True)

    def now(self) -> int:
        """Return the time, also while a CPU executes."""
        return self._time + TICK * self._running.value

    def begin(self, counter: ctypes.c_uint64) -> None:
        """Take note that a CPU is about to execute, whose counter is 0."""
        self._running = counter

    def end(self, count: int) -> None:
        """Take note that it stopped after so many."""
        self._time += TICK * count
        self._running = ctypes.c_uint64()

    def advance(self, until: int) -> None:
        """Let time pass without an instruction."""
        self._time = max(self._time, until)
