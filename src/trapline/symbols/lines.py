"""Source lines from DWARF. The units are read for the first line that is asked for, a line table when it is needed."""

import logging
import posixpath
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final, NamedTuple

from trapline.errors import UsageError

from .dwarf.cursor import Damaged, Steps, TooMuch
from .dwarf.line_table import Table, read_table
from .dwarf.units import Unit, UnitReader
from .elf import Opener
from .sections import Elf

log = logging.getLogger(__name__)

_NAMES: Final = (
    ".debug_abbrev", ".debug_line", ".debug_str", ".debug_line_str", ".debug_ranges", ".debug_rnglists",
    ".debug_addr", ".debug_str_offsets",
)  # fmt: skip
_MOST: Final = 256 << 20
"""Bytes of these sections together, and of a compressed .debug_info: a Linux kernel's have 60 MiB."""

_Lines = tuple[list[int], list["Line | None"]]


class Line(NamedTuple):
    """A place in the sources."""

    file: str
    """Relative to the directory of the compilation, if it is inside."""
    number: int


class Lines:
    """The line tables of a file."""

    def __init__(self, name: str, opener: Opener) -> None:
        """`name` is the file's, for messages."""
        self._name = name
        self._opener = opener
        self._sections: Mapping[str, bytes] = {}
        self._units: list[tuple[int, int, Unit]] | None = None
        self._tables: dict[int, _Lines] = {}
        self._steps = Steps(0)

    def find(self, address: int) -> Line | None:
        """Return the line of an address in the file; None: unknown."""
        if self._units is None:
            self._units = self._open()
        place = bisect_right(self._units, address, key=lambda unit: unit[0]) - 1
        if place < 0:
            return None
        begin, end, unit = self._units[place]
        if not begin <= address < end:
            return None
        table = self._tables.get(unit.lines)
        if table is None:
            table = self._tables[unit.lines] = self._read(unit)
        addresses, lines = table
        place = bisect_right(addresses, address) - 1
        return lines[place] if place >= 0 else None

    def _open(self) -> list[tuple[int, int, Unit]]:
        """Read the units, in the order of their addresses. Symbols work without: what is damaged is left out."""
        found: list[tuple[int, int, Unit]] = []
        sections: dict[str, bytes] = {}
        try:
            with self._opener() as file:
                elf = Elf(file)
                info, room = elf.part(".debug_info", _MOST), _MOST
                for name in _NAMES:
                    sections[name] = elf.content(name, room)
                    room -= len(sections[name])
                for unit in UnitReader(info, sections).units():
                    found += [(begin, end, unit) for begin, end in unit.ranges if begin < end]
        except TooMuch:
            log.warning("%s: its debug information has too many entries: some source lines are left out", self._name)
        except UsageError as error:
            log.warning("%s: %s: source lines are left out", self._name, error)
        except (Damaged, OSError):
            pass
        self._sections = sections
        self._steps = Steps(4 * len(sections.get(".debug_line", b"")) + 1000)
        return sorted(found, key=lambda unit: unit[:2])

    def _read(self, unit: Unit) -> _Lines:
        try:
            table = read_table(self._sections, unit.lines, unit.shape.address, self._steps)
        except (Damaged, TooMuch):
            return [], []
        rows = sorted(table.rows, key=lambda row: row[:2])
        names = _file_names(unit, table)
        lines: dict[tuple[int, int], Line | None] = {}
        for row in rows:
            if (row.file, row.line) not in lines:
                name = names.get(row.file)
                lines[row.file, row.line] = Line(name, row.line) if name and row.line > 0 else None
        return [row.address for row in rows], [lines[row.file, row.line] if row.starts else None for row in rows]


def _file_names(unit: Unit, table: Table) -> dict[int, str]:
    home = unit.directory.decode("utf-8", "replace")
    inside = home.rstrip("/") + "/"
    names = {}
    for number, file in table.files.items():
        directory = table.directories.get(file.directory, b"").decode("utf-8", "replace")
        path = posixpath.join(home, directory, file.name.decode("utf-8", "replace"))
        short = path[len(inside) :] if home and path.startswith(inside) else path
        names[number] = posixpath.normpath(short)
    return names
