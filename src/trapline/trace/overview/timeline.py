"""Counts of each vector along an axis whose end is not known before: the bins grow with it."""

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS: Final = 1 << 18
"""The most bins that an axis has: 1 MiB for each vector."""
MOST: Final = (1 << 32) - 1
"""The most that a bin counts."""


class Axis(NamedTuple):
    """Counts along `tsc` or `seq`. Bin `i` is of the values from `(first + i) << shift` on, `1 << shift` of them."""

    first: int
    shift: int
    least: int
    """The lowest value."""
    most: int
    """The highest value."""
    counts: "dict[int, NDArray[np.uint32]]"
    """By vector; all have as many bins."""

    def halved(self) -> "Axis":
        """Return the axis with half as many bins, each of twice the width."""
        counts = {vector: _halved(bins, self.first) for vector, bins in self.counts.items()}
        return self._replace(first=self.first >> 1, shift=self.shift + 1, counts=counts)


class Bins:
    """Counts values as they come, in at most `BINS` bins of a width that is a power of two."""

    def __init__(self) -> None:
        self._first, self._shift, self._least, self._most = 0, 0, -1, -1
        self._counts: dict[int, NDArray[np.uint32]] = {}

    def add(self, values: "NDArray[np.uint64]", vectors: "NDArray[np.uint8]") -> None:
        """Count values, each of a vector; they need no order."""
        if not values.size:
            return
        self._extend(int(values.min()), int(values.max()))
        places = ((values >> np.uint64(self._shift)) - np.uint64(self._first)).astype(np.int64)
        for vector in np.flatnonzero(np.bincount(vectors)).tolist():
            here = places[vectors == vector]
            start = int(here.min())
            found = np.bincount(here - start)
            if vector not in self._counts:
                self._counts[vector] = np.zeros(BINS, np.uint32)
            bins = self._counts[vector][start : start + found.size]
            bins[:] = np.minimum(bins + found, MOST)

    def axis(self) -> Axis | None:
        """Return the counts so far; None: there was no value."""
        if self._least < 0:
            return None
        used = (self._most >> self._shift) - self._first + 1
        counts = {vector: bins[:used].copy() for vector, bins in sorted(self._counts.items())}
        return Axis(self._first, self._shift, self._least, self._most, counts)

    def _extend(self, least: int, most: int) -> None:
        """Make room for values."""
        if self._least < 0:
            self._least, self._most = least, most
            while (most >> self._shift) - (least >> self._shift) >= BINS:
                self._shift += 1
            self._first = least >> self._shift
            return
        self._least, self._most = min(self._least, least), max(self._most, most)
        while (self._most >> self._shift) - min(self._first, self._least >> self._shift) >= BINS:
            for bins in self._counts.values():
                halved = _halved(bins, self._first)
                bins[: halved.size] = halved[:BINS]
                bins[halved.size :] = 0
            self._first, self._shift = self._first >> 1, self._shift + 1
        if (ahead := self._first - (self._least >> self._shift)) > 0:
            for bins in self._counts.values():
                bins[ahead:] = bins[: BINS - ahead].copy()
                bins[:ahead] = 0
            self._first -= ahead


def _halved(bins: "NDArray[np.uint32]", first: int) -> "NDArray[np.uint32]":
    """Return bins of twice the width: those whose numbers, from `first` on, differ in their lowest bit are one."""
    before = first & 1
    wide = np.zeros((bins.size + before + 1) // 2 * 2, np.uint64)
    wide[before : before + bins.size] = bins
    found: NDArray[np.uint32] = np.minimum(wide[::2] + wide[1::2], MOST).astype(np.uint32)
    return found
