"""Rows that were read from JSON lines, as columns."""

import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from msgspec.structs import astuple

from trapline.errors import UsageError
from trapline.machine.record import GENERAL
from trapline.trace.schema import modes_of
from trapline.trace.stored import evidence_line, read_stored

from .json_gather import Flags, Hexadecimals, Numbers, Texts, Values
from .json_rows import Block, RowReader, Rows
from .layout import types
from .writer import Note

_AT_ONCE: Final = 1 << 13
"""Records of a batch, or some more."""
_MODE: Final = ("cr0", "efer", "rflags")
_SYMBOL: Final = ("symbol", "symbol_offset")
_HEX: Final = {
    *("address", "cs", "cs_base", "rip", "ss", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6"),
    *GENERAL,
}
_EVENTS: Final = {
    event + end: (event, member)
    for event in ("vectoring", "injected")
    for end, member in (("", "vector"), ("_type", "type"), ("_error_code", "error_code"))
}
"""Columns of events: the member of a record, and the event's."""
_PLACE: Final = re.compile(r"(.*)\+0x([0-9a-f]{1,16})", re.DOTALL)


class Read(NamedTuple):
    """A batch, and the evidence among its records."""

    batch: pa.RecordBatch
    notes: list[Note]


def read_columns(blocks: Iterable[Block], names: Sequence[str]) -> Iterator[Read]:
    """Yield columns of `layout.STORED`. Raises UsageError for a damaged line, after most of what is before it."""
    gathered = _Gathered(names)
    for block in blocks:
        try:
            rows = gathered.reader.read(block)
        except UsageError:
            yield from gathered.take()
            raise
        gathered.add(block, rows)
        if gathered.size >= _AT_ONCE:
            yield from gathered.take()
    yield from gathered.take()


class _Gathered:
    """Blocks, of which a batch is made."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names: Final = names
        self._sources: Final = dict.fromkeys(source for name in names for source in _sources(name))
        self.reader: Final = RowReader(
            [_EVENTS[source][0] if source in _EVENTS else source for source in self._sources]
        )
        self._begin()

    def _begin(self) -> None:
        self.size = 0
        self._blocks: list[Block] = []
        self._notes: list[Note] = []
        self._values: dict[str, Values] = {name: _values(name) for name in self._sources}

    def add(self, block: Block, found: Rows) -> None:
        """Take a block, and what it has."""
        self._blocks.append(block)
        rows, noted = found
        self._notes += [Note(self.size + each.place, evidence_line(each.evidence)) for each in noted]
        self.size += len(rows)
        if not rows:
            return
        members = dict(zip(self.reader.members, zip(*map(astuple, rows), strict=True), strict=True))
        try:
            for name, values in self._values.items():
                values.add(_part_of(*_EVENTS[name], members) if name in _EVENTS else members[name])
        except (ValueError, OverflowError):
            self._blame()
            raise

    def take(self) -> Iterator[Read]:
        """Yield what was gathered, if there is something, and forget it."""
        if not self.size and not self._notes:
            return
        try:
            found = {name: values.array() for name, values in self._values.items()}
        except (ValueError, OverflowError):
            self._blame()
            raise
        batch, notes = pa.record_batch([_column(name, found) for name in self._names], list(self._names)), self._notes
        self._begin()
        yield Read(batch, notes)

    def _blame(self) -> None:
        """Raise UsageError for the line that is damaged."""
        lines = io.BytesIO(b"".join(block.text for block in self._blocks))
        deque(read_stored(lines, self._blocks[0].before), 0)


def _sources(name: str) -> Sequence[str]:
    """Return the columns of which another one is made."""
    if name == "mode":
        return _MODE
    return ("symbol",) if name in _SYMBOL else (name,)


def _values(name: str) -> Values:
    kind = types()[name]
    if name in _HEX:
        return Hexadecimals()
    if pa.types.is_dictionary(kind):
        return Texts()
    return Flags() if pa.types.is_boolean(kind) else Numbers(kind)


def _part_of(event: str, member: str, members: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    events = members[event]
    return [each and getattr(each, member) for each in events] if any(events) else events


def _column(name: str, found: dict[str, pa.Array]) -> pa.Array:
    if name == "mode":
        return _modes(*(found[part] for part in _MODE))
    if name not in _SYMBOL:
        return found[name]
    places = [_place(symbol) for symbol in found["symbol"].dictionary.to_pylist()]
    indices = found["symbol"].indices
    if name == "symbol_offset":
        return pa.array([offset for _, offset in places], pa.uint64()).take(indices)
    functions = pa.array([function for function, _ in places], pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(functions.indices.take(indices), functions.dictionary)


def _modes(*registers: pa.Array) -> pa.Array:
    missing = np.logical_or.reduce([each.is_null().to_numpy(zero_copy_only=False) for each in registers])
    codes, table = modes_of(*(each.fill_null(0).to_numpy() for each in registers))
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32), mask=missing), pa.array(table))


@lru_cache(1 << 14)
def _place(symbol: str) -> tuple[str, int | None]:
    """Return function and offset."""
    match = _PLACE.fullmatch(symbol)
    return (match[1], int(match[2], 16)) if match else (symbol, None)
