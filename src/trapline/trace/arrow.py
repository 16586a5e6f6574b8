"""Records as an Arrow table: for pandas, Polars, DuckDB and Parquet files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .column import Batch, Column, Columnar, Kind, Numbers, Texts
from .libraries import need_pyarrow
from .schema import COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa


def to_table(batch: Batch) -> "pa.Table":
    """Return a table with a column for each of `schema.COLUMNS`; a missing value is null, text is a dictionary.

    Raises MissingExtra where pyarrow is not installed.
    """
    need_pyarrow()
    import pyarrow as pa

    return pa.Table.from_batches([to_batch(batch, tuple(COLUMNS))])


def to_batch(batch: Columnar, names: Sequence[str]) -> "pa.RecordBatch":
    """Return some columns of records."""
    import pyarrow as pa

    return pa.record_batch([_array(COLUMNS[name], batch) for name in names], list(names))


def _array(column: Column, batch: Columnar) -> "pa.Array":
    import pyarrow as pa

    if column.kind is Kind.TRUTH:
        return pa.array(batch.over(column))
    if column.kind is Kind.TEXT:
        texts: Texts = batch.over(column)
        missing = np.array([text is None for text in texts.table], np.bool_)
        places = np.cumsum(~missing) - 1  # without those that are missing
        known = [text for text in texts.table if text is not None]
        codes = pa.array(np.take(places, texts.codes).astype(np.int32), mask=np.take(missing, texts.codes))
        return pa.DictionaryArray.from_arrays(codes, pa.array(known, pa.string()))
    numbers: Numbers = batch.over(column)
    mask = None if numbers.present is None else ~numbers.present
    return pa.array(np.ascontiguousarray(numbers.values), mask=mask)
