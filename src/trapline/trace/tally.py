"""Counts by vector, with the first and the last RIP of each: what a summary shows."""

from dataclasses import dataclass
from typing import Final

from trapline.arch.layout import offset_of
from trapline.arch.vectors import VECTORS
from trapline.machine.record import RECORD_SIZE, Record

_VECTOR: Final = offset_of(Record, "vector")
_RIP: Final = offset_of(Record, "rip")
_CS_BASE: Final = offset_of(Record, "cs_base")


@dataclass(frozen=True, slots=True)
class VectorCount:
    """One row of a summary."""

    vector: int
    count: int
    first_rip: int
    last_rip: int
    first_cs_base: int = 0
    last_cs_base: int = 0


class Tally:
    """Counts records as they come, a batch at a time, without numpy: loading it takes longer than it saves."""

    def __init__(self) -> None:
        self.total = 0
        self._counts = [0] * len(VECTORS)
        self._first: dict[int, bytes] = {}
        self._last: dict[int, bytes] = {}

    def add(self, data: memoryview | bytes) -> None:
        """Count a batch of whole records."""
        vectors = bytes(data[_VECTOR::RECORD_SIZE])
        for vector in set(vectors):
            self._counts[vector] += vectors.count(vector)
            if vector not in self._first:
                self._first[vector] = _record(data, vectors.find(vector))
            self._last[vector] = _record(data, vectors.rfind(vector))
        self.total += len(vectors)

    def add_one(self, record: bytes) -> None:
        """Count one record: what is done for each exception while the guest waits."""
        vector = record[_VECTOR]
        self._counts[vector] += 1
        self._first.setdefault(vector, record)
        self._last[vector] = record
        self.total += 1

    def counts(self) -> dict[int, int]:
        """Return the count of each vector that was seen; from any thread, while records come."""
        return {vector: count for vector, count in enumerate(self._counts) if count}

    def rows(self) -> list[VectorCount]:
        """Return a row for each vector that was seen, in the order of vectors."""
        return [
            VectorCount(
                vector,
                self._counts[vector],
                _word(first, _RIP),
                _word(self._last[vector], _RIP),
                _word(first, _CS_BASE),
                _word(self._last[vector], _CS_BASE),
            )
            for vector, first in sorted(self._first.items())
        ]


def _record(data: memoryview | bytes, place: int) -> bytes:
    return bytes(data[place * RECORD_SIZE : (place + 1) * RECORD_SIZE])


def _word(record: bytes, place: int) -> int:
    return int.from_bytes(record[place : place + 8], "little")
