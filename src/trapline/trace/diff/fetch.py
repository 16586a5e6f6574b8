"""Some records of a trace as values, by their places in it."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from trapline.trace.questions.rows import Row, rows

if TYPE_CHECKING:
    import pyarrow as pa


_FAR: Final = 1 << 19
"""So many records apart, two are read one by one where a reading can begin at any record."""


class Records(Protocol):
    """What has records: a `reading.Reading`."""

    @property
    def count(self) -> int | None:
        """How many there are; None: only a reading tells, and each begins at the first one."""

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
    wanted, found = sorted(set(places)), dict[int, Row]()
    apart = _FAR if starts is not None and records.count is not None else None
    ends = [at for at, (one, two) in enumerate(pairwise(wanted), 1) if apart is not None and two - one > apart]
    for start, end in pairwise((0, *ends, len(wanted))):
        some = wanted[start:end]
        found.update(zip(some, rows(_Some(records, some, starts), registers=registers), strict=True))
    return found
