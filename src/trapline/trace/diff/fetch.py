"""Some records of a trace as values, by their places in it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from trapline.trace.questions.rows import Row, rows

if TYPE_CHECKING:
    import pyarrow as pa


class Records(Protocol):
    """What has records: a `reading.Reading`."""

    def batches(self, columns: Iterable[str], *, first: int = 0) -> "Iterator[pa.RecordBatch]":
        """Yield some columns of records; those with a `seq` below `first` may be left out."""


class _Some:
    """Some of the records."""

    def __init__(self, records: Records, places: Sequence[int], starts: "NDArray[np.uint64] | None") -> None:
        self._records, self._places, self._starts = records, places, starts

    def batches(self, columns: Iterable[str], /) -> "Iterator[pa.RecordBatch]":
        """Yield batches of those that are wanted, as far as the last one."""
        import pyarrow as pa

        left, start, first = list(self._places), 0, 0
        if self._starts is not None and left:
            start, first = self._starts[np.searchsorted(self._starts[:, 0], left[0], "right") - 1].tolist()
        names = tuple(dict.fromkeys(("seq", *columns)))
        for whole in self._records.batches(names, first=first):
            batch = whole.filter(pa.compute.greater_equal(whole.column("seq"), first)) if first else whole
            end = start + batch.num_rows
            here = [place - start for place in left if place < end]
            if here:
                yield batch.take(pa.array(here))
                del left[: len(here)]
            if not left:
                return
            start = end


def fetch(
    records: Records, places: Iterable[int], starts: "NDArray[np.uint64] | None", *, registers: bool
) -> dict[int, Row]:
    """Return records by their places among all. Raises UsageError for a damaged trace.

    `starts`: some of the places and the `seq` of each, which grows from record to record; None: it does not.
    """
    wanted = sorted(set(places))
    return dict(zip(wanted, rows(_Some(records, wanted, starts), registers=registers), strict=True))
