"""Line tables: programs that say which line each address is of (DWARF 5, 6.2; DWARF 4, 6.2.4)."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from .cursor import Cursor, Damaged, Steps
from .forms import LINE_STRP, STRING, STRP, Shape, read_value

ROWS: Final = 1_000_000
"""Rows of one table."""
_FILES: Final = 100_000
"""Files and directories of one table."""
_COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE, _CONST_ADD_PC, _FIXED_ADVANCE_PC = 1, 2, 3, 4, 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2
"""Extended operations."""
_PATH, _DIRECTORY = 1, 2
"""DW_LNCT_path and DW_LNCT_directory_index."""


class File(NamedTuple):
    """A source file."""

    name: bytes
    directory: int


class Row(NamedTuple):
    """A line from an address on."""

    address: int
    starts: bool
    """False: the code ends here. An end sorts before a start."""
    file: int
    line: int


class Table(NamedTuple):
    """The line table of a unit."""

    directories: Mapping[int, bytes]
    files: Mapping[int, File]
    rows: list[Row]


class _Header(NamedTuple):
    shape: Shape
    step: int
    """The least length of an instruction."""
    line_base: int
    line_range: int
    opcode_base: int
    operands: bytes
    """How many a standard operation has."""


def read_table(sections: Mapping[str, bytes], offset: int, address_size: int, steps: Steps) -> Table:
    """Read a table. Raises Damaged, and TooMuch where it has too many rows."""
    cursor = Cursor(sections.get(".debug_line", b""), offset)
    length, offset_size = cursor.length()
    cursor.end = min(cursor.end, cursor.at + length)
    version = cursor.uint(2)
    if not 2 <= version <= 5:
        raise Damaged
    if version == 5:
        address_size, _ = cursor.uint(1), cursor.uint(1)
    header_length = cursor.uint(offset_size)
    program = cursor.at + header_length
    step = cursor.uint(1)
    cursor.skip(1 if version >= 4 else 0)
    cursor.skip(1)
    base = cursor.uint(1)
    line_range, opcode_base = cursor.uint(1), cursor.uint(1)
    operands = bytes(cursor.uint(1) for _ in range(1, opcode_base))
    shape = Shape(version, offset_size, address_size)
    header = _Header(shape, step, base - 256 if base >= 128 else base, line_range, opcode_base, b"\0" + operands)
    if not line_range:
        raise Damaged
    directories, files = _new_names(cursor, shape, sections) if version == 5 else _old_names(cursor)
    cursor.at = program
    rows = []
    for row in _rows(cursor, header, steps):
        rows.append(row)
        if len(rows) > ROWS:
            raise Damaged
    return Table(directories, files, rows)


def _old_names(cursor: Cursor) -> tuple[dict[int, bytes], dict[int, File]]:
    """Read directories and files, numbered from 1: directory 0 is the unit's, file 0 its first."""
    directories: dict[int, bytes] = {}
    while name := cursor.string():
        directories[len(directories) + 1] = name
    files: dict[int, File] = {}
    while name := cursor.string():
        files[len(files) + 1] = File(name, cursor.uleb())
        cursor.uleb()
        cursor.uleb()
        if len(files) > _FILES:
            raise Damaged
    return directories, files


def _new_names(cursor: Cursor, shape: Shape, sections: Mapping[str, bytes]) -> tuple[dict[int, bytes], dict[int, File]]:
    directories = {number: file.name for number, file in enumerate(_entries(cursor, shape, sections))}
    return directories, dict(enumerate(_entries(cursor, shape, sections)))


def _entries(cursor: Cursor, shape: Shape, sections: Mapping[str, bytes]) -> Iterator[File]:
    formats = [(cursor.uleb(), cursor.uleb()) for _ in range(cursor.uint(1))]
    count = cursor.uleb()
    if count > min(_FILES, cursor.end - cursor.at):
        raise Damaged
    for _ in range(count):
        name, directory = b"", 0
        for content, form in formats:
            given, value = read_value(cursor, form, 0, shape)
            if content == _PATH and isinstance(value, int) and given in (STRP, LINE_STRP):
                section = ".debug_line_str" if given == LINE_STRP else ".debug_str"
                name = Cursor(sections.get(section, b""), value).string()
            elif content == _PATH and given == STRING and isinstance(value, bytes):
                name = value
            elif content == _DIRECTORY and isinstance(value, int):
                directory = value
        yield File(name, directory)


def _rows(cursor: Cursor, header: _Header, steps: Steps) -> Iterator[Row]:
    address, file, line = 0, 1, 1
    while cursor.at < cursor.end:
        steps.take()
        opcode = cursor.uint(1)
        if opcode >= header.opcode_base:
            advance, more = divmod(opcode - header.opcode_base, header.line_range)
            address += advance * header.step
            line += header.line_base + more
            yield Row(address, True, file, line)
        elif opcode == 0:
            extended, data = _extended(cursor)
            if extended == _END_SEQUENCE:
                yield Row(address, False, file, line)
                address, file, line = 0, 1, 1
            elif extended == _SET_ADDRESS:
                address = int.from_bytes(data[:8], "little")
        elif opcode == _COPY:
            yield Row(address, True, file, line)
        elif opcode in (_ADVANCE_PC, _CONST_ADD_PC, _FIXED_ADVANCE_PC):
            address += _advance(cursor, opcode, header)
        elif opcode == _ADVANCE_LINE:
            line += cursor.sleb()
        elif opcode == _SET_FILE:
            file = cursor.uleb()
        else:
            _skip(cursor, header.operands[opcode])


def _extended(cursor: Cursor) -> tuple[int, bytes]:
    """Read an extended operation and its operands."""
    size = cursor.uleb()
    start = cursor.at
    cursor.skip(size)
    return (cursor.data[start], cursor.data[start + 1 : cursor.at]) if size else (0, b"")


def _advance(cursor: Cursor, opcode: int, header: _Header) -> int:
    """Return how far an operation moves the address."""
    if opcode == _ADVANCE_PC:
        return cursor.uleb() * header.step
    if opcode == _FIXED_ADVANCE_PC:
        return cursor.uint(2)
    return (255 - header.opcode_base) // header.line_range * header.step


def _skip(cursor: Cursor, operands: int) -> None:
    for _ in range(operands):
        cursor.uleb()
