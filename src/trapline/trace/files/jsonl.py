"""Traces of JSON lines, as a source of columns and of evidence."""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Final

from trapline.errors import UsageError
from trapline.trace.stored import Metadata, read_stored

from .json_rows import Block, RowReader, read_blocks
from .trace import Found, Piece

if TYPE_CHECKING:
    import pyarrow as pa


class JsonSource:
    """An open file of JSON lines (`trace.Source`). Evidence is read without pyarrow."""

    count: Final = None

    def __init__(self, file: io.BufferedReader) -> None:
        """Read the first line. Raises UsageError where there is none of a trace."""
        self._file = file
        self._begun: Iterator[Block] | None = None
        """What begins with the blocks that were read already."""
        blocks = read_blocks(file)
        for block in blocks:
            for _, line in read_stored(io.BytesIO(block.text), block.before):
                self.metadata: Metadata = line if isinstance(line, Metadata) else Metadata()
                self._begun = chain([block], blocks)
                return
        raise UsageError("not a trace: it has no line of JSON for an exception, as run -o and import write them")

    def batches(self, names: Sequence[str], first: int) -> "Iterator[pa.RecordBatch]":
        """See `trace.Source`."""
        from .json_columns import read_columns

        for batch, _ in read_columns(self._blocks(), names):
            yield batch

    def evidence(self, outcomes: set[str]) -> Iterator[Found]:
        """See `trace.Source`."""
        reader = RowReader(["outcome"])
        for block in self._blocks():
            rows, noted = reader.read(block)
            outcomes.update({str(row.outcome) for row in rows})
            for _, line, evidence in noted:
                yield Found(f"line {line}", evidence)

    def pieces(self) -> Iterator[Piece]:
        """See `trace.Source`."""
        return pieces_of(self._blocks())

    def close(self) -> None:
        """See `trace.Source`."""
        self._file.close()

    def _blocks(self) -> Iterator[Block]:
        blocks, self._begun = self._begun, None
        if blocks is None:
            self._file.seek(0)
            blocks = read_blocks(self._file)
        return blocks


def pieces_of(blocks: Iterable[Block]) -> Iterator[Piece]:
    """Yield records and evidence as writers take them."""
    from .json_columns import read_columns
    from .layout import STORED, StoredColumns

    for batch, notes in read_columns(blocks, STORED):
        yield Piece(StoredColumns(batch), notes)
