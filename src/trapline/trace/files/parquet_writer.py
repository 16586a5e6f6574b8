"""Writes traces as Parquet files. What can be read of one whose run is killed is in a stream beside it."""

from collections import deque
from collections.abc import Sequence
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from trapline.trace.column import Columnar
from trapline.trace.stored import Metadata

from .arrow_writer import ArrowWriter, Batches, Gate
from .layout import EVIDENCE, LAST_EVIDENCE, types
from .writer import Note, Writer

_GROUP: Final = 1 << 16
"""Records of a row group. They are in memory until it is written, some 20 MB."""
_MOST: Final = 1000
"""Pieces of evidence that are kept after the last record: Parquet has them in its footer, and memory until then."""
_DELTA: Final = ("seq", "tsc")
"""Columns that grow from record to record."""


class ParquetWriter:
    """Writes a Parquet file, and its stream (`writer.Writer`)."""

    def __init__(self, file: BinaryIO, part: BinaryIO | None) -> None:
        self._file = Gate(file)
        self._part = None if part is None else ArrowWriter(part)

    def begin(self, metadata: Metadata) -> None:
        """See `writer.Writer`."""
        self._batches = Batches(metadata)
        self._last = deque[str](maxlen=_MOST)
        self._group: list[pa.RecordBatch] = []
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file, "w"),
            _plain(self._batches.schema),
            compression="zstd",
            use_dictionary=[name for name in self._batches.schema.names if name not in (*_DELTA, EVIDENCE)],
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            write_page_checksum=True,
        )
        if self._part is not None:
            self._part.begin(metadata)

    def write(self, columns: Columnar, notes: Sequence[Note]) -> None:
        """See `writer.Writer`."""
        converted = self._batches.convert(columns)
        if self._part is not None:
            self._part.write_batch(converted, notes)
        batch = self._batches.add(converted, notes)
        if batch.num_rows:
            self._group.append(batch)
            if sum(each.num_rows for each in self._group) >= _GROUP:
                self._write_group()

    def flush(self) -> None:
        """See `writer.Writer`."""
        self._last.extend(self._batches.rest())
        if self._part is not None:
            self._part.flush()

    def close(self) -> None:
        """See `writer.Writer`."""
        self._last.extend(self._batches.rest())
        self._write_group()
        self._writer.add_key_value_metadata({LAST_EVIDENCE.decode(): "".join(self._last)})
        self._writer.close()
        self._file.flush()

    def abandon(self) -> None:
        """See `writer.Writer`."""
        self._file.shut()
        if self._part is not None:
            self._part.abandon()

    def _write_group(self) -> None:
        group, self._group = self._group, []
        if group:
            self._writer.write_table(pa.Table.from_batches(group).cast(self._writer.schema), 2 * _GROUP)


def parquet_writer(file: BinaryIO, part: BinaryIO | None) -> Writer:
    """Return what writes a Parquet file, and the stream that has its records until it is complete."""
    return ParquetWriter(file, part)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Return a schema with text in place of dictionaries: Parquet makes its own."""
    kinds = types()
    fields = [field.with_type(pa.string()) if pa.types.is_dictionary(kinds[field.name]) else field for field in schema]
    return pa.schema(fields, schema.metadata)
