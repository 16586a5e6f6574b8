"""Which columns a file has, of which types, and how the others are computed from them."""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trapline.trace.arrow import to_batch
from trapline.trace.column import Batch, Column, Kind, Numbers, Texts, linear
from trapline.trace.columns import view
from trapline.trace.schema import COLUMNS

METADATA: Final = b"trapline"
"""The key of the metadata of a schema, in Arrow and Parquet: JSON. An Arrow batch with this key has evidence there."""
EVIDENCE: Final = "evidence"
"""A column of text: the lines of evidence that were noted before the record."""
LAST_EVIDENCE: Final = b"trapline_evidence"
"""The key, in a Parquet file's metadata, of the evidence after the last record."""
_HAS: Final = "has_"
_LINEAR: Final = "linear_rip"
STORED: Final = tuple(name for name in COLUMNS if name != _LINEAR and not name.startswith(_HAS))
"""The columns that files have, but for evidence; those without general registers lack these."""


@cache
def types() -> dict[str, pa.DataType]:
    """Return the type of each column."""
    empty = to_batch(Batch(view(b""), np.zeros(0, np.uint64)), tuple(COLUMNS))
    return {field.name: field.type for field in empty.schema} | {EVIDENCE: pa.string()}


def needed(names: Iterable[str]) -> list[str]:
    """Return the stored columns from which some columns are computed."""
    found: dict[str, None] = {}
    for name in names:
        parts = ("rip", "cs_base") if name == _LINEAR else (name.removeprefix(_HAS),)
        found.update(dict.fromkeys(parts))
    return list(found)


class StoredColumns:
    """Columns that a file has (`column.Columnar`); those that it lacks have no values."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    @property
    def size(self) -> int:
        """How many exceptions there are."""
        return int(self._batch.num_rows)

    def array(self, name: str) -> pa.Array:
        """Return a column as Arrow's array."""
        place = self._batch.schema.get_field_index(name)
        if place >= 0:
            return self._batch.column(place)
        if name == _LINEAR:
            return self._linear()
        if name.startswith(_HAS):
            return self.array(name.removeprefix(_HAS)).is_valid()
        return pa.nulls(self.size, types()[name])

    def part(self, start: int, count: int, /) -> "StoredColumns":
        """Return some of them, `count` at most."""
        return StoredColumns(self._batch.slice(start, count))

    def chosen(self, mask: NDArray[np.bool_]) -> "StoredColumns":
        """Return those for which a mask holds."""
        return StoredColumns(self._batch.filter(pa.array(mask)))

    def over(self, column: Column, /) -> Any:  # noqa: ANN401  # by the column's kind
        """Return a column as numpy's arrays; see `Column.over`."""
        array = self.array(column.name)
        if column.kind is Kind.TRUTH:
            return array.fill_null(False).to_numpy(zero_copy_only=False)
        if column.kind is Kind.TEXT:
            table = array.dictionary.to_pylist()
            codes = array.indices.fill_null(len(table)).to_numpy(zero_copy_only=False)
            return Texts(codes, (*table, None))
        return _numbers(array)

    def _linear(self) -> pa.Array:
        rip, base = (_numbers(self.array(name)) for name in ("rip", "cs_base"))
        some = rip.present is not None or base.present is not None
        missing = ((rip.values >> 32 == 0) & ~base.known()) | ~rip.known() if some else None
        return pa.array(linear(rip.values, base.values), mask=missing)


def _numbers(array: pa.Array) -> Numbers:
    if not array.null_count:
        return Numbers(array.to_numpy())
    return Numbers(array.fill_null(0).to_numpy(), array.is_valid().to_numpy(zero_copy_only=False))
