"""Traces of JSON lines, as a source of columns and of evidence."""

import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from trapline.errors import UsageError
from trapline.trace.stored import Line, Metadata, StoredEvidence, StoredRecord, evidence_line, read_stored

from .trace import Found, Piece
from .writer import Note

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE: Final = 1 << 13
"""Records of a batch."""


class JsonSource:
    """An open file of JSON lines (`trace.Source`). Evidence is read without pyarrow."""

    count: Final = None

    def __init__(self, file: io.BufferedReader) -> None:
        """Read the first line. Raises UsageError where there is none of a trace."""
        self._file = file
        lines = read_stored(file)
        head = list(islice(lines, 1))
        self._first: Iterator[tuple[int, Line]] | None = chain(head, lines)
        if not head:
            raise UsageError("not a trace: it has no line of JSON for an exception, as run -o and import write them")
        first = head[0][1]
        self.metadata: Metadata = first if isinstance(first, Metadata) else Metadata()

    def batches(self, names: Sequence[str], first: int) -> "Iterator[pa.RecordBatch]":
        """See `trace.Source`."""
        from .json_columns import batch_of

        records = (line for _, line in self._lines() if isinstance(line, StoredRecord))
        while some := list(islice(records, _AT_ONCE)):
            yield batch_of(some, names)

    def evidence(self, outcomes: set[str]) -> Iterator[Found]:
        """See `trace.Source`."""
        for number, line in self._lines():
            if isinstance(line, StoredRecord):
                outcomes.add(str(line.outcome))
            elif isinstance(line, StoredEvidence):
                yield Found(f"line {number}", line)

    def pieces(self) -> Iterator[Piece]:
        """See `trace.Source`."""
        return pieces_of(line for _, line in self._lines())

    def close(self) -> None:
        """See `trace.Source`."""
        self._file.close()

    def _lines(self) -> Iterator[tuple[int, Line]]:
        lines, self._first = self._first, None
        if lines is None:
            self._file.seek(0)
            lines = read_stored(self._file)
        return lines


def pieces_of(lines: Iterator[Line]) -> Iterator[Piece]:
    """Yield records and evidence as writers take them."""
    from .json_columns import batch_of
    from .layout import STORED, StoredColumns

    while some := list(islice(lines, _AT_ONCE)):
        records: list[StoredRecord] = []
        notes: list[Note] = []
        for line in some:
            if isinstance(line, StoredEvidence):
                notes.append(Note(len(records), evidence_line(line)))
            elif isinstance(line, StoredRecord):
                records.append(line)
        yield Piece(StoredColumns(batch_of(records, STORED)), notes)
