"""What two traces are aligned by: a key for each record, of its vector, its place and its error code.

The place is the function with the offset in it where both traces have symbols, or else the linear address, less what
address-space randomisation adds: see `randomised`. A key is a hash of 64 bits: of ten million different ones, two are
equal with a probability of 3 in a million.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from hashlib import blake2b
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trapline.trace.column import Kind, Numbers
from trapline.trace.files.layout import StoredColumns
from trapline.trace.questions.groups import Batches
from trapline.trace.schema import COLUMNS, numbers_of

from .anchors import Keys
from .both import both
from .randomised import Randomised, randomised

NAMED: Final = np.uint64(1 << 9)
"""In `Places.rest`: the place has a name."""
_HAS_CODE: Final = np.uint64(1 << 8)
_HIGH: Final = np.uint64(63)
_PAGE: Final = np.uint64(0xFFF)
_AT_ONCE: Final = 1 << 20
NOT_STATE: Final = frozenset({"seq", "tsc", "vcpu", "source"})
"""Columns that `state` leaves out: time, and what a column beside them tells."""


class By(Enum):
    """What the place of an exception is."""

    PLACE = "place"
    """The function with the offset in it, or the address."""
    FUNCTION = "function"
    """The function alone, or the address: for two builds of one program."""


class Places(NamedTuple):
    """The records of a trace."""

    place: Keys
    """The number of a name plus the offset, or the linear address."""
    rest: Keys
    """The vector and the error code, and whether there are a code and a name."""
    state: Keys | None
    """A hash of all other columns that are compared."""
    starts: "NDArray[np.uint64]"
    """The first record of each batch and its `seq`, two columns."""


class Keyed(NamedTuple):
    """Both traces by keys."""

    a: Keys
    b: Keys
    state: tuple[Keys, Keys] | None
    starts: tuple["NDArray[np.uint64]", "NDArray[np.uint64]"]
    names: bool
    """Whether names were compared, where there are some."""
    randomised: tuple[Randomised, ...]


def keyed(a: Batches, b: Batches, by: By, *, state: bool) -> Keyed:
    """Return a key for each record of two traces. Raises UsageError for a damaged trace."""
    columns = [name for name in COLUMNS if name not in NOT_STATE] if state else []
    sides = both(lambda each: _read(each, by, columns), a, b)
    named = [bool((side.rest & NAMED).any()) for side in sides]
    if named[0] != named[1]:
        one, two = (
            _read(each, None, columns) if has_names else side
            for each, side, has_names in zip((a, b), sides, named, strict=True)
        )
        sides = one, two
    found = randomised(*((side.place, _halves(side.rest, side.place)) for side in sides))
    for side, is_b in zip(sides, (False, True), strict=True):
        _place_alike(side, found, is_b=is_b)
    first, second = both(_hash, *sides)
    states = None if sides[0].state is None or sides[1].state is None else (sides[0].state, sides[1].state)
    return Keyed(first, second, states, (sides[0].starts, sides[1].starts), all(named), found)


def _halves(rest: Keys, place: Keys) -> NDArray[np.int8]:
    """Return in which half of the address space each place is: 1 the upper one; -1: it has a name."""
    return np.where(rest & NAMED != 0, np.int8(-1), (place >> _HIGH).astype(np.int8))


def _place_alike(side: Places, found: Iterable[Randomised], *, is_b: bool) -> None:
    """Take out of the places what randomisation added."""
    for each in found:
        for start in range(0, side.place.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            place = side.place[part]
            chosen = _halves(side.rest[part], place) == each.half
            if each.slide is None:
                place[chosen] &= _PAGE
            elif is_b:
                place[chosen] -= np.uint64(each.slide)


class _Texts:
    """Numbers of 64 bits in place of texts: the same for a text in every trace."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._tables: dict[str, tuple[pa.Array, Keys]] = {}

    def over(self, columns: StoredColumns, name: str) -> Keys:
        """Return the numbers of a column of text; 0: there is none."""
        array = columns.array(name)
        table, numbers = self._tables.get(name, (None, None))
        if numbers is None or not array.dictionary.equals(table):
            table = array.dictionary
            numbers = np.array([*map(self._number, table.to_pylist()), 0], np.uint64)
            self._tables[name] = table, numbers
        found: Keys = numbers[array.indices.fill_null(numbers.size - 1).to_numpy(zero_copy_only=False)]
        return found

    def _number(self, text: str | None) -> int:
        if text is None:
            return 0
        if text not in self._numbers:
            self._numbers[text] = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
        return self._numbers[text]


def _read(records: Batches, by: By | None, state: Sequence[str]) -> Places:
    wanted = ["seq", "vector", "error_code", "linear_rip", "rip"]
    if by is not None:
        wanted += ["symbol", "symbol_offset"] if by is By.PLACE else ["symbol"]
    texts = _Texts()
    places, rests, states, starts, count = [], [], [], [], 0
    for batch in records.batches(dict.fromkeys((*wanted, *state))):
        columns = StoredColumns(batch)
        place, rest = _key(columns, by, texts)
        places.append(place)
        rests.append(rest)
        if state:
            states.append(_state(columns, state, texts))
        starts.append((count, batch.column("seq")[0].as_py() or 0))
        count += batch.num_rows
    return Places(
        _joined(places),
        _joined(rests),
        _joined(states) if state else None,
        np.array(starts, np.uint64).reshape(-1, 2),
    )


def _joined(parts: list[Keys]) -> Keys:
    """Return some arrays as one; they are freed."""
    found = np.concatenate([np.zeros(0, np.uint64), *parts])
    parts.clear()
    return found


def _key(columns: StoredColumns, by: By | None, texts: _Texts) -> tuple[Keys, Keys]:
    code, rip, linear = (numbers_of(columns, name) for name in ("error_code", "rip", "linear_rip"))
    rest = numbers_of(columns, "vector").values.astype(np.uint64)
    rest |= np.where(code.known(), code.values.astype(np.uint64) << np.uint64(16) | _HAS_CODE, np.uint64(0))
    place = np.where(linear.known(), linear.values, rip.values).astype(np.uint64)
    if by is None:
        return place, rest
    name = texts.over(columns, "symbol")
    named = name != 0
    if by is By.PLACE:
        name += numbers_of(columns, "symbol_offset").values.astype(np.uint64)
    return np.where(named, name, place), rest | np.where(named, NAMED, np.uint64(0))


def _state(columns: StoredColumns, names: Sequence[str], texts: _Texts) -> Keys:
    found = np.zeros(columns.size, np.uint64)
    for name in names:
        column = COLUMNS[name]
        if column.kind is Kind.TEXT:
            value = texts.over(columns, name)
        elif column.kind is Kind.TRUTH:
            value = columns.over(column).astype(np.uint64)
        else:
            numbers: Numbers = columns.over(column)
            value = numbers.values.astype(np.uint64)
        found = mixed(found ^ value)
    return found


def _hash(side: Places) -> Keys:
    """Return the keys, in place of the places."""
    for start in range(0, side.place.size, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        side.place[part] = mixed(side.place[part] ^ mixed(side.rest[part]))
    return side.place


def mixed(values: Keys) -> Keys:
    """Return a hash of 64 bits of each value: the last step of SplitMix64, by Steele, Lea and Flood (2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
