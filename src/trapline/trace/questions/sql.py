"""SQL over traces: the table `trace`, in DuckDB, read only."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from trapline.errors import MissingExtra, TraplineError, UsageError
from trapline.trace.files.layout import types
from trapline.trace.reading import RUN
from trapline.trace.schema import COLUMNS

from .groups import Batches

if TYPE_CHECKING:
    import duckdb

TABLE: Final = "trace"
"""The name of the table; its columns are those of conditions, and `run`."""
_CONFINED: Final = (
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET lock_configuration = true",
)
"""A query reads nothing but the table, and writes nothing."""
_AT_ONCE: Final = 1 << 12
"""Rows that are fetched at a time."""
_COLUMNS: Final = (*COLUMNS, RUN)


class Answer(NamedTuple):
    """The result of a query, read as it is asked for."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]
    """Raises what `query` does."""


def query(records: Batches, text: str) -> Answer:
    """Run one SELECT over the table `trace`; only the columns that it uses are read.

    Raises UsageError for what is not a SELECT, and for a damaged trace; MissingExtra without DuckDB; TraplineError
    where there is not enough memory.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("duckdb", "query") from None
    connection = duckdb.connect()
    for setting in _CONFINED:
        connection.execute(setting)
    table = _Table(records, _COLUMNS)
    try:
        _check(connection, text)
        connection.register(TABLE, table)
        table.names = _used(connection, text)
        connection.unregister(TABLE)
        connection.register(TABLE, table)
        table.is_open = True
        result = connection.execute(text)
        return Answer(_distinct([each[0] for each in result.description]), _rows(result, table))
    except duckdb.Error as error:
        raise _blamed(error, table) from error


class _Table:
    """Records as Arrow's stream, each time that a query scans them; before it `is_open` an empty one."""

    def __init__(self, records: Batches, names: Sequence[str]) -> None:
        self._records, self.names = records, tuple(names)
        self.is_open = False
        self.failure: TraplineError | None = None
        """What went wrong while a query read: DuckDB keeps its text alone."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        schema = pa.schema([(name, _type(name)) for name in self.names])
        batches = self._batches(schema) if self.is_open else iter(())
        return pa.RecordBatchReader.from_batches(schema, batches).__arrow_c_stream__(requested_schema)

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._records.batches(self.names):
                yield batch.cast(schema)  # texts as they are: the dictionary of each batch is another
        except TraplineError as error:
            self.failure = error
            raise


def _type(name: str) -> pa.DataType:
    kind = pa.string() if name == RUN else types()[name]
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _check(connection: "duckdb.DuckDBPyConnection", text: str) -> None:
    from duckdb import StatementType

    statements = connection.extract_statements(text)
    if len(statements) != 1 or statements[0].type != StatementType.SELECT:
        raise UsageError("query: give one SELECT, such as 'select vector, count(*) from trace group by vector'")


def _used(connection: "duckdb.DuckDBPyConnection", text: str) -> tuple[str, ...]:
    """Return the columns that the scans of a query read, from DuckDB's plan; all where it does not tell."""
    plan = connection.execute(f"EXPLAIN (FORMAT json) {text}").fetchall()[0][1]
    try:
        scans = list(_scans(json.loads(plan)))
    except ValueError:  # text, as of `describe trace`
        return _COLUMNS
    used = {name for scan in scans for name in ([scan] if isinstance(scan, str) else scan)}
    return tuple(name for name in _COLUMNS if name in used) if used <= {*_COLUMNS} and used else _COLUMNS


def _scans(nodes: Any) -> Iterator[str | list[str]]:  # noqa: ANN401  # JSON's
    for node in nodes:
        if node["name"].strip().endswith("ARROW_SCAN"):
            yield node["extra_info"].get("Projections", [*_COLUMNS])
        yield from _scans(node["children"])


def _rows(result: "duckdb.DuckDBPyConnection", table: _Table) -> Iterator[tuple[Any, ...]]:
    import duckdb

    try:
        while rows := result.fetchmany(_AT_ONCE):
            yield from rows
    except duckdb.Error as error:
        raise _blamed(error, table) from error


def _blamed(error: "duckdb.Error", table: _Table) -> TraplineError:
    """Return what is wrong: with the trace, with the query, or with the machine."""
    import duckdb

    if table.failure is not None:
        return table.failure
    told = " ".join(str(error).partition("\nLINE ")[0].split())
    if isinstance(error, duckdb.OutOfMemoryException):
        return TraplineError(f"query: {told}")
    return UsageError(f"query: {told}")


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which none is twice."""
    found: dict[str, None] = {}
    for name in names:
        number, own = 1, name
        while own in found:
            number += 1
            own = f"{name}_{number}"
        found[own] = None
    return tuple(found)
