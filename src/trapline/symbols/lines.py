"""Source lines from DWARF, by pyelftools. The line table of a compile unit is read when it is first needed.

The unit of an address is found in .debug_aranges, or, for units that compilers other than GCC leave out there, in the
unit's own ranges (DWARF 5, 6.1.2 and 3.1.1).
"""

import logging
import posixpath
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from trapline.errors import UsageError

from .bounded import Meter, check_line_header, open_dwarf
from .elf import Opener
from .inlined import Functions, ranges
from .source_paths import SourcePath, best

log = logging.getLogger(__name__)

_NOWHERE: Final = (0, 0, -1)
_UNITS: Final = 1_000_000
"""Reads of all units of a file: a Linux kernel's take a tenth of them, and as many take three seconds."""
_TABLE: Final = 400_000
"""Reads of a line table: most rows take one."""
_ENTRIES: Final = 1_000_000
"""Reads of all entries in which inlined functions are looked for: three seconds."""
_SEARCH: Final = 1_000_000
"""Reads of the line tables in which a source is looked for: three seconds."""
_NAMELESS: Final = SourcePath("", "")


class Line(NamedTuple):
    """A place in the sources."""

    file: str
    """Relative to the directory of the compilation, if it is inside."""
    number: int


class Inlined(NamedTuple):
    """A function that a compiler inlined."""

    name: str
    line: Line | None
    """Of the call; None: unknown."""


class _Table(NamedTuple):
    """What was read of a unit."""

    addresses: list[int]
    lines: list[Line | None]
    files: dict[int, str]
    """The sources by their numbers."""


class Lines:
    """The line tables of a file."""

    def __init__(self, name: str, opener: Opener) -> None:
        """`name` is the file's, for messages."""
        self._name = name
        self._opener = opener
        self._meter = Meter(_UNITS)
        self._dwarf: Any = None
        self._units: list[tuple[int, int, int]] | None = None
        self._tables: dict[int, _Table] = {}
        self._functions: dict[int, Functions | None] = {}
        self._sources: dict[int, SourcePath] = {}
        self._left = _ENTRIES

    def find(self, address: int) -> Line | None:
        """Return the line of an address in the file; None: unknown."""
        unit = self._unit(address)
        if unit is None:
            return None
        table = self._table(unit)
        place = bisect_right(table.addresses, address) - 1
        return table.lines[place] if place >= 0 else None

    def inlined(self, address: int) -> tuple[Inlined, ...]:
        """Return the functions that were inlined where an address is, innermost first."""
        unit = self._unit(address)
        if unit is None or self._left <= 0:
            return ()
        files = self._table(unit).files
        self._meter.left = self._left
        try:
            if unit not in self._functions:
                self._functions[unit] = None  # unless it can be read
                self._functions[unit] = Functions(self._dwarf, self._dwarf.get_CU_at(unit))
            functions = self._functions[unit]
            calls = [] if functions is None else functions.calls(address)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # as in _open
            log.debug("%s: %r", self._name, error)
            calls = []
        self._left = self._meter.left
        places = (Line(files[file], line) if line and files.get(file) else None for _, file, line in calls)
        return tuple(Inlined(call.name, place) for call, place in zip(calls, places, strict=True))[::-1]

    def directory(self, address: int) -> str | None:
        """Return the directory in which the source of an address was compiled; None: unknown."""
        unit = self._unit(address)
        return None if unit is None else self._source(unit).directory or None

    def of_source(self, path: str) -> dict[int, list[int]]:
        """Return for each line of a source the addresses of its rows; empty: the source is unknown.

        `path` need not be where the compiler found it: see `source_paths.best`.
        """
        wanted = SourcePath("", path)
        units = sorted({unit for _, _, unit in self._all_units()})
        units = [unit for unit in units if self._source(unit).name == wanted.name] or units
        read = list(self._searched(units, path))
        chosen = best(wanted, {self._at(unit, file) for unit in read for file in self._table(unit).files.values()})
        lines: dict[int, list[int]] = {}
        for unit in read:
            table = self._table(unit)
            last = dict(zip(table.addresses, table.lines, strict=True))  # of rows at one address the last one counts
            for address, line in last.items():
                if line is not None and self._at(unit, line.file) in chosen:
                    lines.setdefault(line.number, []).append(address)
        return lines

    def _searched(self, units: list[int], path: str) -> Iterator[int]:
        """Yield units until it took too long to read their tables."""
        left = _SEARCH
        for unit in units:
            if unit not in self._tables:
                self._table(unit)
                left -= _TABLE - self._meter.left
            yield unit
            if left < 0:
                log.warning("%s: its line tables are too long to look for %s in all of them", self._name, path)
                return

    def _at(self, unit: int, file: str) -> SourcePath:
        return SourcePath(self._source(unit).directory, file)

    def _source(self, unit: int) -> SourcePath:
        """Return the source of a unit."""
        if unit not in self._sources:
            self._sources[unit] = _NAMELESS  # unless it can be read
            self._meter.left = _TABLE
            try:
                attributes = self._dwarf.get_CU_at(unit).get_top_DIE().attributes
                values = [attributes.get(f"DW_AT_{name}") for name in ("comp_dir", "name")]
                self._sources[unit] = SourcePath(
                    *(each.value.decode("utf-8", "replace") if each else "" for each in values)
                )
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001  # as in _open
                log.debug("%s: %r", self._name, error)
        return self._sources[unit]

    def _all_units(self) -> list[tuple[int, int, int]]:
        if self._units is None:
            self._units = self._open()
        return self._units

    def _unit(self, address: int) -> int | None:
        """Return the offset of the unit that an address is in."""
        units = self._all_units()
        place = bisect_right(units, (address, 1 << 64, 0)) - 1
        begin, end, unit = units[place] if place >= 0 else _NOWHERE
        return unit if begin <= address < end else None

    def _table(self, unit: int) -> _Table:
        table = self._tables.get(unit)
        if table is None:
            table = self._tables[unit] = self._read(unit)
        return table

    def _open(self) -> list[tuple[int, int, int]]:
        """Read the units, in the order of their addresses. Symbols work without lines: what is damaged is left out."""
        found: list[tuple[int, int, int]] = []
        try:
            with self._opener() as file:
                self._dwarf = open_dwarf(file, self._meter)
            for unit in _units(self._dwarf):
                found.append(unit)  # those before a damaged one count
        except UsageError as error:
            log.warning("%s: %s: source lines are left out", self._name, error)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # on damaged tables the library raises anything
            log.debug("%s: %r", self._name, error)
        if self._meter.left < 0:  # where it raises TooMuch, the library may make another error of it
            log.warning("%s: its debug information has too many entries: some source lines are left out", self._name)
        return sorted(found)

    def _read(self, unit: int) -> _Table:
        self._meter.left = _TABLE
        files: dict[int, str] = {}
        try:
            rows = sorted(_rows(self._dwarf, unit, files), key=lambda row: row[:2])
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            log.debug("%s: %r", self._name, error)
            rows = []
        return _Table([address for address, _, _ in rows], [line for _, _, line in rows], files)


def _units(dwarf: Any) -> Iterator[tuple[int, int, int]]:  # noqa: ANN401  # a library without hints
    """Yield begin, end and offset of the unit for each range of code."""
    aranges = dwarf.get_aranges()
    listed = set()
    for entry in () if aranges is None else aranges.entries:
        if entry.length:
            listed.add(entry.info_offset)
            yield entry.begin_addr, entry.begin_addr + entry.length, entry.info_offset
    for unit in dwarf.iter_CUs():
        if unit.cu_offset not in listed:
            for begin, end in ranges(dwarf, unit, unit.get_top_DIE()):
                yield begin, end, unit.cu_offset


def _rows(dwarf: Any, offset: int, files: dict[int, str]) -> Iterator[tuple[int, bool, Line | None]]:  # noqa: ANN401
    """Yield address, whether a line starts there (an end sorts before a start), and the line; fill in the sources."""
    unit = dwarf.get_CU_at(offset)
    place = unit.get_top_DIE().attributes.get("DW_AT_stmt_list")
    if place is not None:
        dwarf.debug_line_sec.stream.seek(place.value)
        check_line_header(unit.structs, dwarf.debug_line_sec.stream)
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return
    files |= _file_names(unit, program)
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        if state.end_sequence:
            yield state.address, False, None
        else:
            name = files.get(state.file)
            yield state.address, True, Line(name, state.line) if name and state.line else None


def _file_names(unit: Any, program: Any) -> dict[int, str]:  # noqa: ANN401  # a library without hints
    header = program.header
    compiled = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
    home = compiled.value.decode("utf-8", "replace") if compiled else ""
    directories = [name.decode("utf-8", "replace") for name in header["include_directory"]]
    first = 0 if header["version"] >= 5 else 1
    if first:
        directories.insert(0, home)  # before DWARF 5 directory 0 and file 0 are not listed
    names = {}
    for number, entry in enumerate(header["file_entry"], first):
        name = entry.name.decode("utf-8", "replace")
        index = entry.dir_index or 0  # a table need not have it
        path = posixpath.join(home, directories[index] if index < len(directories) else "", name)
        inside = home and path.startswith(home.rstrip("/") + "/")
        names[number] = posixpath.normpath(path[len(home.rstrip("/")) + 1 :] if inside else path)
    return names
