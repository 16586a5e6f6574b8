"""How many exceptions there are over time, or over the numbers of the records where no time is known."""

from typing import Any, Final, NamedTuple

import numpy as np

from trapline.arch.vectors import mnemonic
from trapline.trace.files.layout import StoredColumns
from trapline.trace.overview.timeline import Axis, Bins
from trapline.trace.schema import numbers_of

from .groups import Batches

INTERVALS: Final = 20
"""How many there are at most, unless asked for."""


class Interval(NamedTuple):
    """A part of the time."""

    first: int
    """Where it begins, in ticks or records; it ends before the next one."""
    times: int
    vectors: dict[int, int]
    """How many exceptions of each vector there are, but for those without any."""


class OverTime(NamedTuple):
    """The answer."""

    column: str
    """`tsc` or `seq`."""
    width: int
    """Ticks or records of an interval."""
    total: int
    intervals: tuple[Interval, ...]


def over_time(records: Batches, limit: int | None = None) -> OverTime:
    """Count records in at most `limit` intervals of one width, a power of two.

    Raises UsageError for a damaged trace.
    """
    stamps, numbers = Bins(), Bins()
    total = 0
    for batch in records.batches(("seq", "tsc", "vector")):
        stored = StoredColumns(batch)
        seq, tsc, vectors = (numbers_of(stored, name) for name in ("seq", "tsc", "vector"))
        total += batch.num_rows
        kinds = vectors.values.astype(np.uint8)
        numbers.add(seq.values.astype(np.uint64), kinds)
        known = slice(None) if tsc.present is None else tsc.present
        stamps.add(tsc.values[known].astype(np.uint64), kinds[known])
    axis, column = stamps.axis(), "tsc"
    if axis is None:
        axis, column = numbers.axis(), "seq"
    if axis is None:
        return OverTime(column, 1, 0, ())
    while _size(axis) > (limit or INTERVALS):
        axis = axis.halved()
    return OverTime(column, 1 << axis.shift, total, tuple(_interval(axis, place) for place in range(_size(axis))))


def document(answer: OverTime) -> dict[str, Any]:
    """Return the answer for JSON."""
    return {
        "by": ["time"],
        "total": answer.total,
        "column": answer.column,
        "width": answer.width,
        "rows": [
            {
                "first": interval.first,
                "count": interval.times,
                "vectors": {mnemonic(vector): times for vector, times in interval.vectors.items()},
            }
            for interval in answer.intervals
        ],
    }


def _size(axis: Axis) -> int:
    return len(next(iter(axis.counts.values())))


def _interval(axis: Axis, place: int) -> Interval:
    counts = {vector: int(counts[place]) for vector, counts in axis.counts.items() if counts[place]}
    return Interval((axis.first + place) << axis.shift, sum(counts.values()), counts)
