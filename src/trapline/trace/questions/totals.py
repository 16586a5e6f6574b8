"""How many exceptions of each vector there are, how often, and at which privilege."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from trapline.arch.vectors import mnemonic
from trapline.trace.files.layout import StoredColumns
from trapline.trace.reading import RUN
from trapline.trace.schema import numbers_of
from trapline.trace.stored import Metadata

from .groups import Batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

_USER: Final = 3
_VECTORS: Final = 256
_MILLION: Final = 1_000_000


class Total(NamedTuple):
    """What is known of all exceptions of a vector."""

    vector: int
    times: int
    kernel: int
    """How many of them at CPL 0 to 2."""
    user: int
    """How many of them at CPL 3; some records have no CPL."""
    first: int
    """The lowest number of a record."""
    last: int
    """The highest number of a record."""


class Totals(NamedTuple):
    """The answer."""

    total: int
    vectors: tuple[Total, ...]
    """By vector."""
    ticks: int
    """From the first to the last time stamp, summed over the runs; 0: unknown."""


def totals(records: Batches) -> Totals:
    """Count records by vector. Raises UsageError for a damaged trace."""
    times, user, kernel = (np.zeros(_VECTORS, np.int64) for _ in range(3))
    first, last = np.full(_VECTORS, np.iinfo(np.uint64).max, np.uint64), np.zeros(_VECTORS, np.uint64)
    spans: dict[str, tuple[int, int]] = {}
    for batch in records.batches(("seq", "vector", "cpl", "tsc", RUN)):
        stored = StoredColumns(batch)
        numbers, vectors, cpl, tsc = (numbers_of(stored, name) for name in ("seq", "vector", "cpl", "tsc"))
        times += _count(vectors.values)
        user += _count(vectors.values[cpl.known() & (cpl.values == _USER)])
        kernel += _count(vectors.values[cpl.known() & (cpl.values < _USER)])
        np.minimum.at(first, vectors.values, numbers.values)
        np.maximum.at(last, vectors.values, numbers.values)
        stamps = tsc.values[tsc.known()]
        if stamps.size:
            run = batch.column(RUN)[0].as_py()
            least, most = spans.get(run, (int(stamps[0]), 0))
            spans[run] = min(least, int(stamps.min())), max(most, int(stamps.max()))
    rows = [
        Total(vector, *(int(counts[vector]) for counts in (times, kernel, user, first, last)))
        for vector in np.flatnonzero(times).tolist()
    ]
    return Totals(int(times.sum()), tuple(rows), sum(most - least for least, most in spans.values()))


class Rate(NamedTuple):
    """A unit in which exceptions are counted over time."""

    name: str
    per_tick: float
    """How many exceptions a time one a tick of the time stamp counter is."""

    def of(self, times: int, ticks: int) -> float | None:
        """Return how many exceptions there were in a unit of time; None: unknown."""
        return times * self.per_tick / ticks if ticks else None


def rate_of(metadata: Metadata) -> Rate:
    """Return the unit of rates: seconds where it is known how long a tick is, else a million ticks."""
    frequency = metadata.tsc_frequency
    return Rate("million ticks", _MILLION) if frequency is None else Rate("second", frequency)


def document(answer: Totals, rate: Rate) -> dict[str, Any]:
    """Return the answer for JSON."""
    return {
        "total": answer.total,
        "ticks": answer.ticks or None,
        "rate_unit": f"per {rate.name}",
        "vectors": [
            {
                "vector": row.vector,
                "name": mnemonic(row.vector),
                "count": row.times,
                "rate": rate.of(row.times, answer.ticks),
                "kernel": row.kernel,
                "user": row.user,
                "first": row.first,
                "last": row.last,
            }
            for row in answer.vectors
        ],
    }


def _count(vectors: "NDArray[np.integer[Any]]") -> "NDArray[np.int64]":
    return np.bincount(vectors, minlength=_VECTORS)
