"""The compile units of DWARF: the addresses of their code, and where their line tables are (DWARF 5, 3.1.1, 7.5).

Only the first entry of each unit is read.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from .cursor import Cursor, Damaged, Steps
from .forms import ADDR, ADDRXS, IMPLICIT, LINE_STRP, RNGLISTX, STRING, STRP, STRXS, Shape, Value, read_value
from .range_lists import old_list, range_list

_FIRST: Final = 4096
"""Bytes of a unit that are read: its header and its first entry."""
_STEPS: Final = 2_000_000
"""Attributes and ranges, of abbreviations and units: those of a Linux kernel are 200,000."""

_STMT_LIST, _LOW, _HIGH, _COMP_DIR, _RANGES = 0x10, 0x11, 0x12, 0x1B, 0x55
_STR_BASE, _ADDR_BASE, _RANGES_BASE = 0x72, 0x73, 0x74
_TYPE, _SKELETON, _SPLIT, _SPLIT_TYPE = 2, 4, 5, 6
"""Types of a unit that are not compile units, or have another header."""

_Attributes = dict[int, Value]


class Source(Protocol):
    """A section that is read in parts."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def part(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer at its end."""


class Unit(NamedTuple):
    """A compile unit."""

    shape: Shape
    lines: int
    """Where its line table is in .debug_line."""
    directory: bytes
    """Of the compilation; empty: unknown."""
    ranges: tuple[tuple[int, int], ...]
    """Start and end of its code."""


class UnitReader:
    """Reads the units of a file."""

    def __init__(self, info: Source, sections: Mapping[str, bytes]) -> None:
        """`sections` are the others by name."""
        self._info = info
        self._sections = sections
        self._steps = Steps(_STEPS)
        self._abbreviations: dict[tuple[int, int], list[tuple[int, int, int]]] = {}

    def units(self) -> Iterator[Unit]:
        """Yield the units with a line table; a damaged one is left out. Raises Damaged and TooMuch."""
        at = 0
        while at < self._info.size:
            self._steps.take()
            cursor = Cursor(self._info.part(at, _FIRST))
            length, offset_size = cursor.length()
            at += cursor.at + length
            try:
                unit = self._unit(cursor, offset_size)
            except Damaged:
                continue
            if unit is not None:
                yield unit

    def _unit(self, cursor: Cursor, offset_size: int) -> Unit | None:
        version = cursor.uint(2)
        if not 2 <= version <= 5:
            return None
        kind = cursor.uint(1) if version == 5 else 0
        if version == 5:
            address_size, abbreviations = cursor.uint(1), cursor.uint(offset_size)
        else:
            abbreviations, address_size = cursor.uint(offset_size), cursor.uint(1)
        if kind in (_TYPE, _SPLIT_TYPE):
            return None
        cursor.skip(8 if kind in (_SKELETON, _SPLIT) else 0)
        shape = Shape(version, offset_size, address_size)
        found: _Attributes = {}
        for name, form, constant in self._abbreviation(abbreviations, cursor.uleb()):
            self._steps.take()
            found[name] = read_value(cursor, form, constant, shape)
        if _STMT_LIST not in found:
            return None
        return Unit(shape, _number(found, _STMT_LIST), self._directory(found, shape), tuple(self._ranges(found, shape)))

    def _abbreviation(self, offset: int, code: int) -> list[tuple[int, int, int]]:
        """Return name, form and constant of each attribute of an abbreviation."""
        if (offset, code) in self._abbreviations:
            return self._abbreviations[offset, code]
        cursor = self._at(".debug_abbrev", offset)
        while found := cursor.uleb():
            self._steps.take()
            cursor.uleb()
            cursor.skip(1)
            attributes = []
            while any(pair := (cursor.uleb(), cursor.uleb())):
                self._steps.take()
                attributes.append((*pair, cursor.sleb() if pair[1] == IMPLICIT else 1))
            if found == code:
                self._abbreviations[offset, code] = attributes
                return attributes
        raise Damaged

    def _at(self, section: str, offset: int) -> Cursor:
        return Cursor(self._sections.get(section, b""), offset)

    def _directory(self, found: _Attributes, shape: Shape) -> bytes:
        form, value = found.get(_COMP_DIR, (STRING, b""))
        if isinstance(value, bytes):
            return value
        if form in STRXS:
            base = _number(found, _STR_BASE, shape.header(8, 16))
            value = self._at(".debug_str_offsets", base + value * shape.offset).uint(shape.offset)
        elif form not in (STRP, LINE_STRP):
            return b""  # in another file
        return self._at(".debug_line_str" if form == LINE_STRP else ".debug_str", value).string()

    def _ranges(self, found: _Attributes, shape: Shape) -> Iterator[tuple[int, int]]:
        low = self._address(found, _LOW, shape) if _LOW in found else 0
        if _RANGES not in found:
            if _LOW in found and _HIGH in found:
                form, high = found[_HIGH][0], self._address(found, _HIGH, shape)
                yield low, high if form == ADDR or form in ADDRXS else low + high
            return
        place = _number(found, _RANGES)
        if shape.version < 5:
            yield from old_list(self._at(".debug_ranges", place), low, shape, self._steps)
            return
        if found[_RANGES][0] == RNGLISTX:
            base = _number(found, _RANGES_BASE, shape.header(12, 20))
            place = base + self._at(".debug_rnglists", base + place * shape.offset).uint(shape.offset)

        def indexed(index: int) -> int:
            return self._indexed(found, index, shape)

        yield from range_list(self._at(".debug_rnglists", place), low, indexed, shape, self._steps)

    def _address(self, found: _Attributes, name: int, shape: Shape) -> int:
        value = _number(found, name)
        return self._indexed(found, value, shape) if found[name][0] in ADDRXS else value

    def _indexed(self, found: _Attributes, index: int, shape: Shape) -> int:
        base = _number(found, _ADDR_BASE, shape.header(8, 16))
        return self._at(".debug_addr", base + index * shape.address).uint(shape.address)


def _number(found: _Attributes, name: int, otherwise: int = 0) -> int:
    value = found[name][1] if name in found else otherwise
    if not isinstance(value, int):
        raise Damaged
    return value
