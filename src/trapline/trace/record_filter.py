"""Chooses the records of a run that are kept, by a condition."""

from typing import Final

from trapline.machine.record import RECORD_SIZE

from .condition import Condition
from .exception_record import Lookup, decode_record
from .exceptions import Exceptions

_MANY: Final = 64
"""From so many records on numpy is faster."""
_NAMES: Final = frozenset({"symbol", "has_symbol"})


class RecordFilter:
    """A condition on records; for one that it does not hold for, nothing else is done."""

    def __init__(self, condition: Condition, lookup: Lookup | None = None) -> None:
        """`lookup` names instructions, for a condition that asks for it."""
        self._condition = condition
        self._lookup = lookup if condition.columns & _NAMES else None
        self._counts = "seq" in condition.columns

    def holds(self, record: memoryview, seq: int) -> bool:
        """Return whether to keep a record, which would have the number `seq`."""
        return self._condition.matches(decode_record(record, 0, seq, self._lookup))

    def choose(self, data: memoryview, first: int) -> bytes:
        """Return the records of a batch that are kept; they have the numbers from `first` on."""
        if len(data) >= _MANY * RECORD_SIZE and not self._counts:
            import numpy as np

            mask = Exceptions(data, lookup=self._lookup).mask(self._condition)
            return np.frombuffer(data, np.dtype((np.void, RECORD_SIZE)))[mask].tobytes()
        kept = bytearray()
        for place in range(0, len(data), RECORD_SIZE):
            record = data[place : place + RECORD_SIZE]
            if self.holds(record, first + len(kept) // RECORD_SIZE):
                kept += record
        return bytes(kept)
