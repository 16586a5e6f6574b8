"""Traces as Arrow's IPC streams, as a source of columns and of evidence."""

import io
from collections.abc import Iterator, Sequence
from typing import Final

import pyarrow as pa

from .binary import OF_EVIDENCE, BoundedFile, found_in, found_in_text, metadata_of, piece_of, present
from .layout import METADATA
from .trace import Found, Piece


class ArrowSource:
    """An open Arrow stream (`trace.Source`), which may be cut off."""

    count: Final = None

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        schema = pa.ipc.open_stream(pa.PythonFile(BoundedFile(file), "r")).schema
        self.metadata = metadata_of(schema)
        self._names: list[str] = schema.names

    def batches(self, names: Sequence[str], first: int) -> Iterator[pa.RecordBatch]:
        """See `trace.Source`."""
        for batch, _ in self._read(present(self._names, names)):
            yield batch

    def evidence(self, outcomes: set[str]) -> Iterator[Found]:
        """See `trace.Source`."""
        for batch, custom in self._read(present(self._names, OF_EVIDENCE)):
            yield from found_in(batch, outcomes)
            yield from found_in_text(b"" if custom is None else custom.get(METADATA, b""))

    def pieces(self) -> Iterator[Piece]:
        """See `trace.Source`."""
        for batch, custom in self._read(self._names):
            yield piece_of(batch, b"" if custom is None else custom.get(METADATA, b""))

    def close(self) -> None:
        """See `trace.Source`."""
        self._file.close()

    def _read(self, names: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, pa.KeyValueMetadata | None]]:
        self._file.seek(0)
        file = BoundedFile(self._file)
        options = pa.ipc.IpcReadOptions(included_fields=[self._names.index(name) for name in names])
        reader = pa.ipc.open_stream(pa.PythonFile(file, "r"), options=options)
        while True:
            try:
                batch, custom = reader.read_next_batch_with_custom_metadata()
            except StopIteration:
                return
            except (OSError, ValueError):
                if file.ended:
                    return
                raise
            batch.validate(full=True)
            yield batch, custom
