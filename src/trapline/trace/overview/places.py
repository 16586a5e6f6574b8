"""The places where most exceptions are raised, counted in bounded memory."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT: Final = 1 << 17
"""How many places of a vector are counted at a time; of more, those with the fewest exceptions are dropped."""
FREQUENT: Final = 64
"""Of how many places at a time names are kept."""


class Place(NamedTuple):
    """Where exceptions of a vector were raised."""

    vector: int
    address: int
    """The linear address of the instruction."""
    times: int
    """At least so many: a place that came back after it was dropped lost its first ones."""
    first: int
    """The number of the first record that was counted."""
    symbol: str | None = None
    """As `memset+0x1a`."""
    source: str | None = None
    """As `lib/string.c:88`."""


class PlaceCounter:
    """Counts the places of one vector."""

    def __init__(self) -> None:
        self._addresses = np.empty(0, np.uint64)
        self._counts = np.empty(0, np.int64)
        self._firsts = np.empty(0, np.uint64)
        self.complete = True
        """Whether no place was dropped."""

    def __len__(self) -> int:
        return self._addresses.size

    def add(self, addresses: "NDArray[np.uint64]", numbers: "NDArray[np.uint64]") -> "NDArray[np.intp]":
        """Count addresses; `numbers` are those of their records, in their order.

        Return where the most frequent of them are for the first time.
        """
        found, at, counts = np.unique(addresses, return_index=True, return_counts=True)
        merged = np.concatenate((self._addresses, found))
        self._addresses, first, places = np.unique(merged, return_index=True, return_inverse=True)
        every = np.concatenate((self._counts, counts))
        self._counts = np.bincount(places, weights=every, minlength=self._addresses.size).astype(np.int64)
        self._firsts = np.concatenate((self._firsts, numbers[at]))[first]
        if self._addresses.size > KEPT:
            self.complete = False
            kept = np.sort(np.argpartition(self._counts, -KEPT // 2)[-KEPT // 2 :])
            self._addresses, self._counts, self._firsts = self._addresses[kept], self._counts[kept], self._firsts[kept]
        often: NDArray[np.intp] = at[np.argsort(-counts, kind="stable")[:FREQUENT]]
        return often

    def top(self, vector: int, limit: int) -> list[Place]:
        """Return the places with the most, most first; of equal ones the lower address."""
        order = np.lexsort((self._addresses, -self._counts))[:limit]
        columns = (self._addresses[order].tolist(), self._counts[order].tolist(), self._firsts[order].tolist())
        return [Place(vector, address, count, first) for address, count, first in zip(*columns, strict=True)]
