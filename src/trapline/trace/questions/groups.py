"""How many records have the same values, for some keys: `vector`, `symbol`, `rip`, `process` or any column."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from trapline.errors import UsageError
from trapline.trace.column import Kind
from trapline.trace.files.layout import StoredColumns
from trapline.trace.reading import RUN
from trapline.trace.schema import COLUMNS
from trapline.trace.selection import process_of
from trapline.typed import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

Value: TypeAlias = int | str | bool | None

MOST: Final = 1 << 21
"""How many groups are counted at a time; of more, those with the fewest records are dropped."""
SORTS: Final = ("count", "key", "first", "last")
"""By what groups are sorted: the most records first, or ascending by their keys or first or last records."""
_NUMBER: Final = "number"
"""The column with the numbers of records, beside the keys: `seq` may be one of them."""
_MERGED_AT: Final = 1 << 18
"""Rows of counts that are merged at a time, at least."""


class Key(NamedTuple):
    """What records are grouped by."""

    values: tuple[str, ...]
    """Names of the values that tell groups apart."""
    columns: tuple[str, ...]
    """The columns of a trace that they are made from."""


_KEYS: Final = {
    "symbol": Key(("symbol", "linear_rip"), ("symbol", "linear_rip")),
    "rip": Key(
        ("linear_rip", "symbol", "symbol_offset", "source"), ("linear_rip", "symbol", "symbol_offset", "source")
    ),
    "process": Key(("process",), ("cr3", "efer")),
    RUN: Key((RUN,), (RUN,)),
}
"""Keys that are not columns, or more than one. `symbol` is the function, or the address where none is known."""
NAMES: Final = (*_KEYS, *(name for name in COLUMNS if name not in _KEYS))
"""All keys."""


class Batches(Protocol):
    """What has records: a `reading.Reading`."""

    def batches(self, columns: Iterable[str], /) -> "Iterator[pa.RecordBatch]":
        """Yield some columns of records."""


class Group(NamedTuple):
    """Records with the same values."""

    values: tuple[Value, ...]
    """Of `Groups.values`."""
    times: int
    """How many they are."""
    first: int
    """The lowest number of them."""
    last: int
    """The highest number of them."""


class Groups(NamedTuple):
    """The answer."""

    keys: tuple[str, ...]
    """As they were asked for."""
    values: tuple[str, ...]
    """The names of the values of a group."""
    total: int
    """How many records there are."""
    distinct: int
    """How many groups there are."""
    groups: tuple[Group, ...]
    """The first of them in the order that was asked for."""
    complete: bool
    """Whether no group was dropped on the way. If not, `times` is the least that it can be."""


def read_keys(text: str) -> tuple[str, ...]:
    """Read `vector,symbol`. Raises UsageError for a key that there is not."""
    keys = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for key in keys:
        if key == "time":
            raise UsageError("--by: time goes with no other key")
        if key not in NAMES:
            raise UsageError(f"--by {shortened(key)}: there is no such key. Keys: {', '.join(('time', *NAMES))}.")
    return keys


def groups(records: Batches, keys: Sequence[str], *, sort: str = "count", limit: int | None = None) -> Groups:
    """Group records by keys of `NAMES`; `limit` is how many groups are returned, None: all.

    Memory is bounded: see `MOST`. Raises UsageError for a damaged trace.
    """
    parts = [_KEYS.get(key, Key((key,), (key,))) for key in keys]
    values = tuple(dict.fromkeys(value for part in parts for value in part.values))
    columns = dict.fromkeys(("seq", *(column for part in parts for column in part.columns)))
    counter = _Counter(values)
    addressed = "symbol" in keys and not {"rip", "linear_rip"} & set(keys)
    for batch in records.batches(columns):
        counter.add([_values(batch, name, addressed=addressed) for name in values], batch.column("seq"))
    table = counter.counted()
    order = _ORDERS[sort] or [(name, "ascending") for name in values]
    found = table.take(pc.sort_indices(table, [*order, ("first", "ascending")])[:limit])
    rows = zip(*(column.to_pylist() for column in found.columns), strict=True)
    return Groups(
        tuple(keys),
        values,
        counter.total,
        table.num_rows,
        tuple(Group(tuple(row[:-3]), *row[-3:]) for row in rows),
        counter.complete,
    )


_ORDERS: Final[dict[str, list[tuple[str, str]] | None]] = {
    "count": [("times", "descending")],
    "key": None,
    "first": [("first", "ascending")],
    "last": [("last", "ascending")],
}
_SUMS: Final = [("times", "sum"), ("first", "min"), ("last", "max")]


class _Counter:
    """Counts groups as records come."""

    def __init__(self, names: Sequence[str]) -> None:
        self.total = 0
        self.complete = True
        self._names = list(names)
        self._parts: list[pa.Table] = []
        self._rows, self._limit = 0, _MERGED_AT

    def add(self, values: Sequence[pa.Array], numbers: pa.Array) -> None:
        self.total += len(numbers)
        table = pa.table([*values, numbers], [*self._names, _NUMBER])
        sums = [([], "count_all"), (_NUMBER, "min"), (_NUMBER, "max")]
        counted = _plain(table.group_by(self._names, use_threads=False).aggregate(sums))
        self._parts.append(counted.rename_columns([*self._names, "times", "first", "last"]))
        self._rows += counted.num_rows
        if self._rows > self._limit:
            self._merge()

    def counted(self) -> pa.Table:
        """Return the groups: their values, `times`, `first` and `last`."""
        self._merge()
        if self._parts:
            return self._parts[0]
        return pa.table([pa.array([], pa.int64())] * (len(self._names) + 3), [*self._names, "times", "first", "last"])

    def _merge(self) -> None:
        if not self._parts:
            return
        table = pa.concat_tables(self._parts).group_by(self._names, use_threads=False).aggregate(_SUMS)
        table = table.rename_columns([*self._names, "times", "first", "last"])
        if table.num_rows > MOST:
            self.complete = False
            table = table.take(pc.sort_indices(table, [("times", "descending")])[: MOST // 2])
        self._parts, self._rows = [table], table.num_rows
        self._limit = max(_MERGED_AT, 2 * table.num_rows)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table whose texts are no dictionaries: those of two batches cannot be merged."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
    return table


def _values(batch: pa.RecordBatch, name: str, *, addressed: bool) -> pa.Array:
    """Return the values of records; `addressed`: an address is one only where no symbol is known."""
    if name == "process":
        table = process_of(StoredColumns(batch))
        return pa.array(table.values, mask=None if table.present is None else ~table.present)
    column = batch.column(name)
    if name == "linear_rip" and addressed:
        return pc.if_else(batch.column("symbol").is_valid(), pa.scalar(None, column.type), column)
    return column


def is_address(name: str) -> bool:
    """Return whether people read the values of a key as hexadecimal numbers."""
    return name == "process" or (name in COLUMNS and COLUMNS[name].kind is Kind.NUMBER and name not in _DECIMAL)


_DECIMAL: Final = frozenset({"seq", "tsc", "vcpu", "cpl"})
_NUMBERS: Final = frozenset({"error_code", "vectoring_error_code", "injected_error_code", "symbol_offset"})
"""Numbers in JSON, too."""


def document(answer: Groups) -> dict[str, Any]:
    """Return the answer for JSON; addresses and values of registers are hexadecimal text."""
    return {
        "by": list(answer.keys),
        "total": answer.total,
        "groups": answer.distinct,
        "complete": answer.complete,
        "rows": [
            {
                **{name: written(name, value) for name, value in zip(answer.values, group.values, strict=True)},
                "count": group.times,
                "first": group.first,
                "last": group.last,
            }
            for group in answer.groups
        ],
    }


def written(name: str, value: Value) -> Value:
    """Return a value for JSON, as records have it there."""
    is_text = is_address(name) and name not in _NUMBERS and isinstance(value, int)
    return f"{value:#x}" if is_text else value
