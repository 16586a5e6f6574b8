"""Writes traces as Arrow's IPC streams, and makes the batches of binary formats."""

from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from trapline.machine.record import GENERAL
from trapline.trace.arrow import to_batch
from trapline.trace.column import Columnar
from trapline.trace.stored import Metadata, metadata_text

from .layout import EVIDENCE, METADATA, STORED, types
from .writer import Note, Writer


class Batches:
    """Makes batches: evidence that comes after their last record goes with the next one's first."""

    def __init__(self, metadata: Metadata) -> None:
        self._names = [name for name in STORED if metadata.registers or name not in GENERAL]
        fields = [(name, types()[name]) for name in (*self._names, EVIDENCE)]
        self.schema = pa.schema(fields, {METADATA: metadata_text(metadata)})
        self._left: list[str] = []

    def convert(self, columns: Columnar) -> pa.RecordBatch:
        """Return a batch of records without evidence."""
        return to_batch(columns, self._names)

    def add(self, batch: pa.RecordBatch, notes: Sequence[Note]) -> pa.RecordBatch:
        """Add evidence to a batch."""
        texts: list[str | None] = [None] * batch.num_rows
        for place, line in (*(Note(0, line) for line in self.rest()), *notes):
            if place < len(texts):
                texts[place] = (texts[place] or "") + line
            else:
                self._left.append(line)
        arrays = [*batch.columns, pa.array(texts, pa.string())]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def rest(self) -> list[str]:
        """Return the evidence after the last record of the last batch, which is not left any more."""
        rest, self._left = self._left, []
        return rest


class Gate:
    """A file for pyarrow, which would complete its files when they are collected: not after `shut`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._shut = False
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write all of the data."""
        return len(data) if self._shut else self._file.write(data)

    def flush(self) -> None:
        """Let it be read."""
        if not self._shut:
            self._file.flush()

    def shut(self) -> None:
        """Write no more."""
        self._shut = True

    def close(self) -> None:
        """Leave the file open: it is somebody else's."""


class ArrowWriter:
    """Writes a stream (`writer.Writer`)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = Gate(file)

    def begin(self, metadata: Metadata) -> None:
        """See `writer.Writer`."""
        self._batches = Batches(metadata)
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), self._batches.schema, options=options)
        self._file.flush()

    def write(self, columns: Columnar, notes: Sequence[Note]) -> None:
        """See `writer.Writer`."""
        self.write_batch(self._batches.convert(columns), notes)

    def write_batch(self, batch: pa.RecordBatch, notes: Sequence[Note]) -> None:
        """Do the same with what `Batches.convert` returned."""
        whole = self._batches.add(batch, notes)
        if whole.num_rows:
            self._writer.write_batch(whole)

    def flush(self) -> None:
        """See `writer.Writer`."""
        rest = self._batches.rest()
        if rest:
            empty = self._batches.schema.empty_table().to_batches()
            batch = empty[0] if empty else pa.RecordBatch.from_pylist([], schema=self._batches.schema)
            self._writer.write_batch(batch, custom_metadata={METADATA: "".join(rest).encode()})
        self._file.flush()

    def close(self) -> None:
        """See `writer.Writer`."""
        self.flush()
        self._writer.close()
        self._file.flush()

    def abandon(self) -> None:
        """See `writer.Writer`."""
        self._file.shut()


def arrow_writer(file: BinaryIO, part: BinaryIO | None) -> Writer:
    """Return what writes a stream."""
    return ArrowWriter(file)
