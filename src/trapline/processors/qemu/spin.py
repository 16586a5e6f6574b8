"""For how long the host polls the mailbox before it sleeps: as long as that helps.

Often the next exit comes sooner than a sleep and a wake-up take. But where no core is free, polling takes from QEMU the
time in which the exit would come.
"""

from typing import Final

MOST: Final = 2000
"""Reads of the mailbox: some 100 us, often longer than the time to the guest's next exit."""
_SELDOM: Final = 0xFF
"""Of the waits that do not poll, those whose number has none of these bits poll after all."""


class Spin:
    """How many reads a wait begins with: twice as many as helped the last time, a quarter of those that did not."""

    def __init__(self) -> None:
        self._reads = self._tried = MOST
        self._slept = 0

    def begin(self) -> int:
        """Return how often to read the mailbox in this wait; `found` or `in_vain` has to follow."""
        self._tried = self._reads
        if not self._reads:
            self._slept += 1
            if not self._slept & _SELDOM:
                self._tried = MOST
        return self._tried

    def found(self) -> None:
        """Note that the mailbox came back meanwhile."""
        self._reads = min(2 * self._tried, MOST)

    def in_vain(self) -> None:
        """Note that it did not."""
        self._reads = self._tried >> 2
