"""What Arrow and Parquet files have in common: bounded reads, their schema, and evidence in columns."""

import io
import os
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from trapline.errors import UsageError
from trapline.trace.stored import Metadata, StoredEvidence, read_evidence, read_metadata

from .layout import EVIDENCE, METADATA, StoredColumns, types
from .trace import Found, Piece
from .writer import Note

OF_EVIDENCE: Final = (EVIDENCE, "outcome")
"""The columns that `found_in` reads."""
_PLACE: Final = "its evidence"


class BoundedFile:
    """A file for pyarrow whose reads never ask for more than it has, whatever a damaged length says."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.closed = False
        self.ended = False
        """A read wanted more than there was."""

    def read(self, size: int = -1) -> bytes:
        """Read some bytes; fewer at the end."""
        left = max(self._size - self._file.tell(), 0)
        self.ended |= size > left
        return self._file.read(left if size < 0 else min(size, left))

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position. Raises OSError for one that there cannot be."""
        return self._file.seek(offset, whence)

    def close(self) -> None:
        """Leave the file open, for the next reading."""


def metadata_of(schema: pa.Schema) -> Metadata:
    """Return the metadata of a file. Raises UsageError where it has none, or has columns of other types."""
    text = (schema.metadata or {}).get(METADATA)
    if text is None:
        raise UsageError("not a trace: run -o and import did not write this file")
    known = types()
    for field in schema:
        if field.name in known and field.type != known[field.name]:
            raise UsageError(f"it is damaged: its column {field.name} has the type {field.type}")
    if len(set(schema.names)) < len(schema.names) or "seq" not in schema.names:
        raise UsageError("it is damaged: its columns are not those of a trace")
    return read_metadata(text)


def present(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return those columns of a file that are wanted; one at least, for the number of records."""
    return [name for name in names if name in wanted] or ["seq"]


def found_in(batch: pa.RecordBatch, outcomes: set[str]) -> Iterator[Found]:
    """Yield the evidence in a batch, and collect what became of its records."""
    found = {name: batch.column(name) for name in OF_EVIDENCE if name in batch.schema.names}
    if "outcome" in found:
        outcomes.update(map(str, found["outcome"].unique().to_pylist()))
    for text in found[EVIDENCE].drop_null() if EVIDENCE in found else ():
        yield from found_in_text(text.as_py().encode())


def piece_of(batch: pa.RecordBatch, after: bytes = b"") -> Piece:
    """Return a batch, and the evidence in it and after it, for a writer."""
    notes = []
    if EVIDENCE in batch.schema.names:
        texts = batch.column(batch.schema.get_field_index(EVIDENCE))
        for place in np.flatnonzero(texts.is_valid().to_numpy(zero_copy_only=False)).tolist():
            notes += [Note(place, line) for line in texts[place].as_py().splitlines(keepends=True)]
    notes += [Note(batch.num_rows, line.decode()) for line in after.splitlines(keepends=True)]
    return Piece(StoredColumns(batch), notes)


def found_in_text(text: bytes) -> Iterator[Found]:
    """Yield the evidence in a text of lines."""
    for piece in read_evidence(text):
        assert isinstance(piece, StoredEvidence)
        yield Found(_PLACE, piece)
