"""Counts by vector, with the first and the last RIP of each: what a summary shows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trapline.arch.vectors import VECTORS

if TYPE_CHECKING:
    from .columns import Records


@dataclass(frozen=True, slots=True)
class VectorCount:
    """One row of a summary."""

    vector: int
    count: int
    first_rip: int
    last_rip: int


class Tally:
    """Counts records as they come, a batch at a time."""

    def __init__(self) -> None:
        self.total = 0
        self._counts = [0] * len(VECTORS)
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def add(self, records: "Records") -> None:
        """Count a batch."""
        import numpy as np

        vectors, rips = records["vector"], records["rip"]
        counts = np.bincount(vectors, minlength=len(VECTORS))
        for vector in np.flatnonzero(counts).tolist():
            places = np.flatnonzero(vectors == vector) if counts[vector] < len(records) else (0, -1)
            self._counts[vector] += int(counts[vector])
            self._first.setdefault(vector, int(rips[places[0]]))
            self._last[vector] = int(rips[places[-1]])
        self.total += len(records)

    def add_one(self, vector: int, rip: int) -> None:
        """Count a single record."""
        self._counts[vector] += 1
        self._first.setdefault(vector, rip)
        self._last[vector] = rip
        self.total += 1

    def rows(self) -> list[VectorCount]:
        """Return a row for each vector that was seen, in the order of vectors."""
        return [
            VectorCount(vector, self._counts[vector], first, self._last[vector])
            for vector, first in sorted(self._first.items())
        ]
