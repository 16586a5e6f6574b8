"""The timer of the local APIC: counts a bus clock down, once or again and again (APM vol. 2, 16.4.1)."""

from collections.abc import Callable
from typing import Final

TICK: Final = 1
"""One cycle of the bus clock in virtual ns: 1 GHz, as QEMU's."""


class LapicTimer:
    """Knows when the count reaches zero; the count itself follows from the clock.

    Whether it is periodic matters at zero only, so a guest may change the mode while it counts.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        """Count the virtual nanoseconds of `clock`."""
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Stop; the clock is divided by 2."""
        self.initial = 0
        self.periodic = False
        self.deadline: int | None = None
        """When the count reaches zero, in virtual ns; None: it is at zero."""
        self.divide_code = 0
        self._unit = 2 * TICK

    def start(self, count: int) -> None:
        """Count down from `count`; 0 stops."""
        self.initial = count
        self.deadline = self._clock() + count * self._unit if count else None

    def divide(self, code: int) -> None:
        """Set the divide configuration register; a running count continues from its value at the new rate."""
        count = self.current()
        self.divide_code = code & 0x0B
        self._unit = TICK << ((code & 3 | code >> 1 & 4) + 1 & 7)
        if self.deadline is not None:
            self.deadline = self._clock() + count * self._unit

    def current(self) -> int:
        """Return the current count."""
        if self.deadline is None:
            return 0
        return max(0, -((self._clock() - self.deadline) // self._unit))

    def expire(self) -> bool:
        """Return whether the count has reached zero: once, however late; the period keeps its phase."""
        if self.deadline is None or self._clock() < self.deadline:
            return False
        if self.periodic:
            period = self.initial * self._unit
            self.deadline += ((self._clock() - self.deadline) // period + 1) * period
        else:
            self.deadline = None
        return True
