"""The three interrupts of the real-time clock, on IRQ 8 (Motorola MC146818A data sheet).

The divider that makes them runs with the virtual clock, whatever time of day the guest sets. Flags are collected when
the register is read; what happened more than once meanwhile happened once.
"""

from collections.abc import Callable
from typing import Final

from . import SECOND

DAY: Final = 86_400
CRYSTAL: Final = 32_768

PERIODIC: Final = 0x40
ALARM: Final = 0x20
UPDATED: Final = 0x10
ANY: Final = 0x80
"""Of status C; the first three enable themselves in status B."""

SET: Final = 0x80


class RtcInterrupts:
    """Status C and the line."""

    def __init__(self, clock: Callable[[], int], irq: Callable[[bool], None], alarm: Callable[[int], bool]) -> None:
        """`irq` is IRQ 8; `alarm` returns whether the alarm is set for a second of the virtual clock."""
        self._clock, self._irq, self._alarm = clock, irq, alarm
        self._seen = clock()
        self._flags = 0
        self._period = 0
        self._enabled = 0
        self._stopped = False

    def reset(self, status_a: int, status_b: int) -> None:
        """Forget what happened."""
        self.configure(status_a, status_b)
        self._flags = 0
        self._update()

    def configure(self, status_a: int, status_b: int) -> None:
        """Take the rate and what is enabled."""
        self._collect()
        rate, held = status_a & 0x0F, status_a & 0x60 == 0x60
        self._period = 0 if not rate or held else 1 << (rate + 6 if rate < 3 else rate - 1)
        self._stopped = held or bool(status_b & SET)
        self._enabled = status_b & (PERIODIC | ALARM | UPDATED)
        self._update()

    def read(self) -> int:
        """Read status C, which ends the interrupt."""
        self._collect()
        flags, self._flags = self._flags, 0
        self._update()
        return flags | ANY if flags & self._enabled else flags

    def advance(self) -> None:
        """Read the clock and raise the line if something enabled has happened."""
        if self._enabled:
            self._collect()
            self._update()

    def next_event(self) -> int | None:
        """Return the virtual ns of the next interrupt; None while the line is up or nothing is enabled."""
        if self._flags & self._enabled:
            return None
        now, times = self._clock(), []
        if self._enabled & PERIODIC and self._period:
            tick = (now * CRYSTAL // SECOND // self._period + 1) * self._period
            times.append(-(-tick * SECOND // CRYSTAL))
        if self._enabled & (ALARM | UPDATED) and not self._stopped:
            times.append((now // SECOND + 1) * SECOND)
        return min(times, default=None)

    def _collect(self) -> None:
        now, seen = self._clock(), self._seen
        self._seen = now
        if self._period:
            ticks, before = now * CRYSTAL // SECOND, seen * CRYSTAL // SECOND
            if ticks // self._period != before // self._period:
                self._flags |= PERIODIC
        second, before = now // SECOND, seen // SECOND
        if second != before and not self._stopped:
            self._flags |= UPDATED
            first = max(before + 1, second - DAY + 1)
            if self._enabled & ALARM and any(self._alarm(passed) for passed in range(first, second + 1)):
                self._flags |= ALARM

    def _update(self) -> None:
        self._irq(self._flags & self._enabled != 0)
