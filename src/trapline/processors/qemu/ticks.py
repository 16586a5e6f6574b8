"""How fast the time stamp counter goes.

Under TCG it is a counter of the host: on x86 its time stamp counter (QEMU 7.2, softmmu/cpu-timers.c, `cpu_get_ticks`;
include/qemu/timer.h, `cpu_get_host_ticks`), whose frequency the guest is not told. Under KVM it is the host's as well.
With `-icount` it counts the nanoseconds of QEMU's virtual clock. So it is measured, while the guest does not run yet.
"""

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from .handshake import Handshake
from .layout import Command, Mailbox

_NANOSECONDS: Final = 1_000_000_000
_TRIES: Final = 5
"""Readings of the counter, of which the quickest counts."""
_QUICK: Final = 20_000
"""Nanoseconds within which one is read where both the monitor and Python have a CPU."""
_EXACT: Final = 500
"""How many times as long as its error a measurement takes: 4 ms on an idle host."""
_PAUSE: Final = 0.004
_LONGEST: Final = 150_000_000
"""Nanoseconds after which a measurement is given up: the host is too busy."""
_DIGITS: Final = 4
"""Those of a frequency that are known."""


class _Reading(NamedTuple):
    ticks: int
    time: int
    """In nanoseconds."""
    error: int


class Ticks:
    """Measures the frequency of the time stamp counter."""

    def __init__(self, command: Sequence[str], handshake: Handshake, mailbox: Mailbox) -> None:
        """`command` is QEMU's command line."""
        self._handshake, self._mailbox = handshake, mailbox
        self._known = _NANOSECONDS if "-icount" in command else None

    def frequency(self) -> int | None:
        """Return the ticks of a second; None: unknown. The first time the guest must be stopped."""
        if self._known is None:
            self._known = self._measure()
        return self._known

    def _measure(self) -> int | None:
        end = time.perf_counter_ns() + _LONGEST
        first = self._read(end)
        while True:
            time.sleep(_PAUSE)
            last = self._read(end)
            span = last.time - first.time
            if span > _EXACT * (first.error + last.error):
                return rounded((last.ticks - first.ticks) * _NANOSECONDS // span)
            if time.perf_counter_ns() > end:
                return None
            first = min(first, last, key=lambda reading: reading.error)

    def _read(self, end: int) -> _Reading:
        best = self._try()
        tries = 1
        while tries < _TRIES or (best.error > _QUICK and time.perf_counter_ns() < end):
            best = min(best, self._try(), key=lambda reading: reading.error)
            tries += 1
        return best

    def _try(self) -> _Reading:
        start = time.perf_counter_ns()
        self._handshake.call(Command.NOTE_TSC)
        error = (time.perf_counter_ns() - start) // 2
        return _Reading(self._mailbox.tsc, start + error, error)


def rounded(frequency: int) -> int | None:
    """Return a frequency without the digits that are not known; None: the counter does not count."""
    if frequency <= 0:
        return None
    unit: int = 10 ** max(len(str(frequency)) - _DIGITS, 0)
    return (frequency + unit // 2) // unit * unit
