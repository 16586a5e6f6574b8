"""The exceptions of a run as a sequence of values over the stored bytes of their records."""

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, overload

from trapline.errors import TraplineError
from trapline.machine.record import RECORD_SIZE

from .column import Batch, Columnar
from .columns import view
from .exception_record import ExceptionRecord, Lookup, decode_record

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from .columns import Records


class Selection(Protocol):
    """What chooses some of many records: a `Condition` or a `rules.Rule`."""

    @property
    def columns(self) -> frozenset[str]:
        """The names of the columns that are used."""

    def mask(self, batch: Columnar) -> "NDArray[np.bool_]":
        """Return for each record whether it is chosen."""


class Exceptions(Sequence[ExceptionRecord]):
    """Recorded exceptions, oldest first. An element is made when it is asked for; a slice copies nothing."""

    def __init__(self, data: bytes | memoryview, *, first: int = 0, lookup: Lookup | None = None) -> None:
        """`data` holds whole records, the first with the sequence number `first`; `lookup` names instructions.

        Raises TraplineError where the last record is cut off.
        """
        count, rest = divmod(len(data), RECORD_SIZE)
        if rest:
            raise TraplineError(f"the last record has {rest} bytes instead of {RECORD_SIZE}")
        self._data = memoryview(data)
        self._numbers: range | array[int] = range(first, first + count)
        self.lookup: Lookup | None = lookup
        """The function that names addresses of instructions; None: there are no symbols."""

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[ExceptionRecord]:
        data, lookup = self._data, self.lookup
        for place, number in enumerate(self._numbers):
            yield decode_record(data, place * RECORD_SIZE, number, lookup)

    @overload
    def __getitem__(self, index: int) -> ExceptionRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "Exceptions": ...
    def __getitem__(self, index: int | slice) -> "ExceptionRecord | Exceptions":
        if isinstance(index, slice):
            places = range(len(self))[index]
            if places.step == 1:
                data = self._data[places.start * RECORD_SIZE :][: len(places) * RECORD_SIZE]
                return self._some(data, self._numbers[index])
            size = RECORD_SIZE
            copied = b"".join(self._data[place * size :][:size] for place in places)
            return self._some(copied, self._numbers[index])
        place = range(len(self))[index]
        return decode_record(self._data, place * RECORD_SIZE, self._numbers[place], self.lookup)

    def __repr__(self) -> str:
        return f"<Exceptions: {len(self):,}>"

    @property
    def data(self) -> memoryview:
        """The stored bytes of the records, one after the other."""
        return self._data

    @property
    def columns(self) -> "Records":
        """The records as a structured numpy array over the same memory: the fields of `machine.record.Record`."""
        return view(self._data)

    def batch(self) -> Batch:
        """Return the records as a `Condition` takes them for its `mask`."""
        import numpy as np

        if isinstance(self._numbers, range):  # millions of ints one by one take long
            start, stop, step = self._numbers.start, self._numbers.stop, self._numbers.step
            numbers = np.arange(start, stop, step, dtype=np.uint64)
        else:
            numbers = np.array(self._numbers, np.uint64)
        return Batch(self.columns, numbers, self.lookup)

    def mask(self, *conditions: str | Selection) -> "NDArray[np.bool_]":
        """Return for each whether it meets all conditions, such as `cpl == 0 and vector == pf`.

        Raises UsageError for what is not a condition.
        """
        return self._mask(self.batch(), conditions)

    def where(self, *conditions: str | Selection) -> "Exceptions":
        """Return those that meet all conditions; see `mask`."""
        batch = self.batch()
        mask = self._mask(batch, conditions)
        numbers = array("Q", batch.numbers[mask].tobytes())
        return self._some(batch.records[mask].tobytes(), numbers)

    def to_arrow(self) -> "pa.Table":
        """Return them as an Arrow table with the columns of a condition. Raises MissingExtra without pyarrow."""
        from .arrow import to_table

        return to_table(self.batch())

    def _mask(self, batch: Batch, conditions: Sequence[str | Selection]) -> "NDArray[np.bool_]":
        import numpy as np

        from .condition import Condition

        selections = [Condition(each) if isinstance(each, str) else each for each in conditions]
        found = np.ones(len(self), np.bool_)
        for selection in selections:
            found &= selection.mask(batch)
        return found

    def _some(self, data: bytes | memoryview, numbers: "range | array[int]") -> "Exceptions":
        found = Exceptions(data, lookup=self.lookup)
        found._numbers = numbers
        return found
