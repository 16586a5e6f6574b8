"""One pass over the batches of a trace."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from trapline.symbols import place_in
from trapline.trace.column import Numbers
from trapline.trace.selection import process_of

from .places import Place, PlaceCounter
from .timeline import Axis, Bins

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

COLUMNS: Final = (
    *("seq", "tsc", "vector", "error_code", "address", "cpl", "linear_rip"),
    *("cr3", "efer", "vcpu", "mode", "symbol", "symbol_offset", "source"),
)
"""The columns that a batch should have; without one, what is made from it is missing."""
RARE: Final = 512
"""A vector with up to so many exceptions is kept whole."""
NEWEST: Final = 64
"""How many of the last records a report shows."""
_PLACES: Final = 64
"""How many places of a vector are kept."""
_NAMES: Final = 1 << 14
"""How many names of places are kept."""
_KEYS: Final = 1 << 16
"""How many address spaces and functions are counted; of more, the ones with the fewest exceptions are dropped."""
_ROWS: Final = 1 << 19
"""Records that are counted at a time."""


class VectorTotal(NamedTuple):
    """What is known of all exceptions of a vector."""

    vector: int
    times: int
    user: int
    """How many of them at CPL 3."""
    first: int
    """The number of the first record."""
    last: int
    """The number of the last record."""


class Rare(NamedTuple):
    """One of the exceptions of a vector that has few."""

    seq: int
    tsc: int | None
    vector: int
    error_code: int | None
    address: int | None
    cpl: int | None
    linear_rip: int | None
    symbol: str | None
    """The name of the function."""
    symbol_offset: int | None
    """Bytes from its start."""
    source: str | None
    """As `lib/string.c:88`."""


class Share(NamedTuple):
    """How many exceptions have a value."""

    value: int | str
    times: int


class Overview(NamedTuple):
    """What a report shows of many records."""

    total: int
    vectors: tuple[VectorTotal, ...]
    """By vector."""
    tsc: Axis | None
    """Counts over time; None: no record has a time stamp."""
    seq: Axis | None
    """Counts over the numbers of the records; None: there is no record."""
    rare: tuple[Rare, ...]
    """All exceptions of the vectors that have up to `RARE`, in their order."""
    places: tuple[Place, ...]
    """The places of each vector with the most, most first."""
    functions: tuple[Share, ...]
    """By the name of the function, most first, as far as symbols know it."""
    processes: tuple[Share, ...]
    """By CR3, most first."""
    modes: tuple[Share, ...]
    """By operating mode, most first."""
    vcpus: tuple[Share, ...]
    """By the number of the virtual CPU, most first."""
    newest: int
    """The number of the first of the last `NEWEST` records."""


class _Chunk:
    """The columns of some records as arrays; a null is 0 and not `valid`."""

    def __init__(self, batch: "pa.RecordBatch") -> None:
        self._batch, self._names = batch, frozenset(batch.schema.names)
        self.size: int = batch.num_rows

    def column(self, name: str) -> "pa.Array | None":
        return self._batch.column(name) if name in self._names else None

    def numbers(self, name: str) -> "NDArray[np.uint64]":
        column = self.column(name)
        if column is None:
            return np.zeros(self.size, np.uint64)
        filled = column.fill_null(0) if column.null_count else column
        found: NDArray[np.uint64] = filled.to_numpy(zero_copy_only=False).astype(np.uint64, copy=False)
        return found

    def valid(self, name: str) -> "NDArray[np.bool_]":
        column = self.column(name)
        if column is None or column.null_count:
            none = np.zeros(self.size, np.bool_)
            return none if column is None else column.is_valid().to_numpy(zero_copy_only=False)
        return np.ones(self.size, np.bool_)

    def processes(self) -> Numbers:
        """Return the page tables of each record."""
        from trapline.trace.files.layout import StoredColumns  # loads pyarrow

        return process_of(StoredColumns(self._batch))

    def values(self, name: str, rows: "NDArray[np.intp]") -> list[Any]:
        """Return the values of some records; None where there is none."""
        column = self.column(name)
        return [None] * rows.size if column is None else column.take(rows).to_pylist()

    def texts(self, name: str) -> "Counter[str]":
        """Return how many records have each text; those without one are left out."""
        column = self.column(name)
        if column is None:
            return Counter()
        if not hasattr(column, "dictionary"):
            column = column.dictionary_encode()
        times = np.bincount(column.indices.drop_null().to_numpy(zero_copy_only=False))
        used = np.flatnonzero(times)
        counts = Counter[str]()
        for text, count in zip(column.dictionary.take(used).to_pylist(), times[used].tolist(), strict=True):
            if text is not None:
                counts[text] += count  # a dictionary may have a text twice
        return counts


class _Pass:
    """The counts so far."""

    def __init__(self) -> None:
        self.total = 0
        self.totals: dict[int, VectorTotal] = {}
        self.tsc, self.seq = Bins(), Bins()
        self.rare: dict[int, list[Rare]] = {}
        self.places: dict[int, PlaceCounter] = {}
        self.names: dict[int, tuple[str | None, str | None]] = {}
        self.functions = Counter[str]()
        self.modes = Counter[str]()
        self.newest = deque[int](maxlen=NEWEST)
        self.processes, self.vcpus = Counter[int](), Counter[int]()

    def add(self, chunk: _Chunk) -> None:
        vectors = (chunk.numbers("vector") & np.uint64(0xFF)).astype(np.uint8)
        numbers, rip, known = chunk.numbers("seq"), chunk.numbers("linear_rip"), chunk.valid("linear_rip")
        user = chunk.numbers("cpl") == 3
        self.total += chunk.size
        self.newest.extend(numbers[-NEWEST:].tolist())
        timed = chunk.valid("tsc")
        self.tsc.add(chunk.numbers("tsc")[timed], vectors[timed])
        self.seq.add(numbers, vectors)
        for vector in np.flatnonzero(np.bincount(vectors)).tolist():
            chosen = vectors == vector
            own = numbers[chosen]
            before = self.totals.get(vector, VectorTotal(vector, 0, 0, int(own.min()), 0))
            self.totals[vector] = VectorTotal(
                vector,
                before.times + own.size,
                before.user + int(np.count_nonzero(user[chosen])),
                min(before.first, int(own.min())),
                max(before.last, int(own.max())),
            )
            if self.totals[vector].times <= RARE:
                self.rare.setdefault(vector, []).extend(_rows(chunk, chosen))
            else:
                self.rare.pop(vector, None)
            placed = np.flatnonzero(chosen & known)
            often = self.places.setdefault(vector, PlaceCounter()).add(rip[placed], numbers[placed])
            self._name(chunk, rip, placed[often])
        tables = chunk.processes()
        for counter, found in (
            (self.processes, tables.values if tables.present is None else tables.values[tables.present]),
            (self.vcpus, chunk.numbers("vcpu")[chunk.valid("vcpu")]),
        ):
            values, counts = np.unique(found, return_counts=True)
            _count(counter, dict(zip(values.tolist(), counts.tolist(), strict=True)))
        _count(self.functions, chunk.texts("symbol"))
        _count(self.modes, chunk.texts("mode"))

    def _name(self, chunk: _Chunk, rip: "NDArray[np.uint64]", rows: "NDArray[np.intp]") -> None:
        """Keep the names of the places of some records."""
        new = rows[[address not in self.names for address in rip[rows].tolist()]]
        if not new.size or len(self.names) > _NAMES:
            return
        symbols, offsets, sources = (chunk.values(name, new) for name in ("symbol", "symbol_offset", "source"))
        for address, symbol, offset, source in zip(rip[new].tolist(), symbols, offsets, sources, strict=True):
            self.names[address] = None if symbol is None else place_in(symbol, offset), source


def overview(batches: "Iterable[pa.RecordBatch]") -> Overview:
    """Return what a report shows of the records in `batches`, whose columns are of `COLUMNS`; memory is bounded."""
    state = _Pass()
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            state.add(_Chunk(batch.slice(start, _ROWS)))
    places = [place for vector, counter in state.places.items() for place in counter.top(vector, _PLACES)]
    places.sort(key=lambda place: (-place.times, place.vector, place.address))
    named = (
        place._replace(symbol=symbol, source=source)
        for place in places
        for symbol, source in [state.names.get(place.address, (None, None))]
    )
    return Overview(
        state.total,
        tuple(total for _, total in sorted(state.totals.items())),
        state.tsc.axis(),
        state.seq.axis(),
        tuple(sorted((row for rows in state.rare.values() for row in rows), key=lambda row: row.seq)),
        tuple(named),
        _shares(state.functions),
        _shares(state.processes),
        _shares(state.modes),
        _shares(state.vcpus),
        min(state.newest, default=0),
    )


def _rows(chunk: _Chunk, chosen: "NDArray[np.bool_]") -> list[Rare]:
    places = np.flatnonzero(chosen)
    columns = [chunk.values(name, places) for name in Rare._fields]
    return [Rare(*row) for row in zip(*columns, strict=True)]


def _count(counter: "Counter[Any]", found: dict[Any, int]) -> None:
    counter.update(found)
    if len(counter) > _KEYS:
        kept = counter.most_common(_KEYS // 2)
        counter.clear()
        counter.update(dict(kept))


def _shares(counter: "Counter[Any]") -> tuple[Share, ...]:
    return tuple(Share(value, count) for value, count in counter.most_common(_PLACES))
