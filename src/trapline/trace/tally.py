"""Counts by vector, with the first and the last RIP of each: what a summary shows."""

from dataclasses import dataclass
from typing import Final

from trapline.arch.layout import offset_of, size_of
from trapline.arch.vectors import VECTORS
from trapline.machine.record import Record

_SIZE: Final = size_of(Record)
_VECTOR: Final = offset_of(Record, "vector")
_RIP: Final = offset_of(Record, "rip")


@dataclass(frozen=True, slots=True)
class VectorCount:
    """One row of a summary."""

    vector: int
    count: int
    first_rip: int
    last_rip: int


class Tally:
    """Counts records as they come, a batch at a time. To load numpy for that would take longer than it can save."""

    def __init__(self) -> None:
        self.total = 0
        self._counts = [0] * len(VECTORS)
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}

    def add(self, data: memoryview | bytes) -> None:
        """Count a batch of whole records."""
        if len(data) == _SIZE:
            self._count_one(data)
            return
        vectors = bytes(data[_VECTOR::_SIZE])
        for vector in set(vectors):
            self._counts[vector] += vectors.count(vector)
            if vector not in self._first:
                self._first[vector] = _rip(data, vectors.find(vector))
            self._last[vector] = _rip(data, vectors.rfind(vector))
        self.total += len(vectors)

    def _count_one(self, data: memoryview | bytes) -> None:
        vector = data[_VECTOR]
        self._counts[vector] += 1
        if vector not in self._first:
            self._first[vector] = _rip(data, 0)
        self._last[vector] = _rip(data, 0)
        self.total += 1

    def rows(self) -> list[VectorCount]:
        """Return a row for each vector that was seen, in the order of vectors."""
        return [
            VectorCount(vector, self._counts[vector], first, self._last[vector])
            for vector, first in sorted(self._first.items())
        ]


def _rip(data: memoryview | bytes, place: int) -> int:
    start = place * _SIZE + _RIP
    return int.from_bytes(data[start : start + 8], "little")
