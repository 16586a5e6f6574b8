"""Traces in Parquet, as a source of columns and of evidence."""

import io
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from .binary import OF_EVIDENCE, BoundedFile, found_in, found_in_text, metadata_of, piece_of, present
from .layout import LAST_EVIDENCE, types
from .trace import Found, Piece

_AT_ONCE: Final = 1 << 16
"""Records of a batch."""
_EVIDENCE_AT_ONCE: Final = 1 << 10
"""Records of a batch with evidence: a piece has up to 1 MiB."""
_LONGEST: Final = 1 << 30
"""Bytes of a string in the footer, and members of a list."""


class ParquetSource:
    """An open and complete Parquet file (`trace.Source`)."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        texts = [name for name, kind in types().items() if pa.types.is_dictionary(kind)]
        self._reader = pq.ParquetFile(
            pa.PythonFile(BoundedFile(file), "r"),
            read_dictionary=texts,
            pre_buffer=False,
            page_checksum_verification=True,
            thrift_string_size_limit=_LONGEST,
        )
        schema = self._reader.schema_arrow
        self.metadata = metadata_of(schema)
        self.count: int = self._reader.metadata.num_rows
        self._names: list[str] = schema.names

    def batches(self, names: Sequence[str], first: int) -> Iterator[pa.RecordBatch]:
        """See `trace.Source`."""
        yield from self._read(present(self._names, names), _AT_ONCE, self._groups(first))

    def evidence(self, outcomes: set[str]) -> Iterator[Found]:
        """See `trace.Source`."""
        for batch in self._read(present(self._names, OF_EVIDENCE), _EVIDENCE_AT_ONCE):
            yield from found_in(batch, outcomes)
        yield from found_in_text(self._last())

    def pieces(self) -> Iterator[Piece]:
        """See `trace.Source`."""
        for batch in self._read(self._names, _AT_ONCE):
            yield piece_of(batch)
        yield piece_of(pa.RecordBatch.from_pylist([], schema=self._reader.schema_arrow), self._last())

    def close(self) -> None:
        """See `trace.Source`."""
        self._file.close()

    def _last(self) -> bytes:
        text: bytes = (self._reader.metadata.metadata or {}).get(LAST_EVIDENCE, b"")
        return text

    def _groups(self, first: int) -> list[int]:
        """Return the row groups that have records with a `seq` from `first` on, or may have some."""
        groups = range(self._reader.metadata.num_row_groups)
        column = self._names.index("seq")
        found = (self._reader.metadata.row_group(group).column(column).statistics for group in groups)
        return [group for group, known in zip(groups, found, strict=True) if not _ends_before(known, first)]

    def _read(
        self, names: Sequence[str], at_once: int, groups: Sequence[int] | None = None
    ) -> Iterator[pa.RecordBatch]:
        for batch in self._reader.iter_batches(at_once, groups, columns=list(names)):
            batch.validate(full=True)
            yield batch


def _ends_before(known: "pq.Statistics | None", first: int) -> bool:
    return known is not None and known.has_min_max and known.max < first
