"""Portable executables for x86-64: sections, symbols and the path of the debug information (Microsoft PE/COFF)."""

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple, TypeAlias

from trapline.errors import UsageError

from .ranges import Function, Ranges

Opener: TypeAlias = Callable[[], BinaryIO]

MAGIC: Final = b"MZ"
HEAD: Final = 0x1000
"""Bytes of an image in which its headers are looked for."""
_HEADER_AT: Final = 0x3C
_SIGNATURE: Final = b"PE\0\0\x64\x86"
_FIELDS: Final = struct.Struct("<H4xIIH")
"""From the machine's number on: sections, symbol table, its entries, size of the optional header."""
_OPTIONAL: Final = 24
_PE32_PLUS: Final = 0x20B
_DIRECTORIES: Final = 112
_DEBUG: Final = 6
"""The number of the debug directory."""
_SECTION: Final = struct.Struct("<8sIIII12xI")
_MOST_SECTIONS: Final = 256
_CODE: Final = 0x2000_0020
"""Section flags: it contains code, or can be executed."""
_SYMBOL: Final = struct.Struct("<8sIhHBB")
_EXTERNAL, _STATIC, _LABEL = 2, 3, 6
_FUNCTION: Final = 0x20
_MOST: Final = 1_000_000
_TABLE: Final = 128 << 20
"""Bytes of the symbol table and of its names that are read."""
_LONGEST: Final = 4096
_DEBUG_ENTRY: Final = struct.Struct("<12xIII4x")
_CODEVIEW: Final = 2
_MOST_ENTRIES: Final = 8
_PATH_AT: Final = {b"RSDS": 24, b"NB10": 16}


class Header(NamedTuple):
    """Of an image for x86-64."""

    image_base: int
    """The address it was linked at; firmware writes there where it has loaded the image."""
    debug: tuple[int, int]
    """Address in the image and size of the debug directory."""
    sections: tuple[int, int]
    """Where the section headers are, and their number."""
    symbols: tuple[int, int]
    """Where the symbol table is in the file, and the number of its entries."""


class Section(NamedTuple):
    """A section of a file."""

    name: str
    address: int
    """Where it was linked."""
    size: int
    offset: int
    """Where it is in the file."""
    stored: int
    """How many bytes of it are in the file."""
    is_code: bool


class File(NamedTuple):
    """What is used of a file."""

    header: Header
    sections: list[Section]
    strings: bytes
    """The names that are longer than 8 bytes."""


def find(head: bytes) -> Header | None:
    """Return the header of an image that begins with `head`; None: it is not a PE32+ image for x86-64."""
    if head[:2] != MAGIC or len(head) < _HEADER_AT + 4:
        return None
    (at,) = struct.unpack_from("<I", head, _HEADER_AT)
    optional = at + _OPTIONAL
    if head[at : at + 6] != _SIGNATURE or len(head) < optional + _DIRECTORIES + 8 * _DEBUG + 8:
        return None
    sections, symbols, entries, size = _FIELDS.unpack_from(head, at + 6)
    magic, image_base, directories = (
        struct.unpack_from(form, head, optional + place)[0] for form, place in (("<H", 0), ("<Q", 24), ("<I", 108))
    )
    if magic != _PE32_PLUS:
        return None
    debug = struct.unpack_from("<II", head, optional + _DIRECTORIES + 8 * _DEBUG) if directories > _DEBUG else (0, 0)
    return Header(image_base, debug, (optional + size, sections), (symbols, entries))


def debug_path(read: Callable[[int, int], bytes], header: Header) -> str | None:
    """Return the path of the debug information of a loaded image; `read(address in the image, size)`. None: none."""
    place, size = header.debug
    for number in range(min(size // _DEBUG_ENTRY.size, _MOST_ENTRIES)):
        kind, length, at = _DEBUG_ENTRY.unpack(read(place + number * _DEBUG_ENTRY.size, _DEBUG_ENTRY.size))
        if kind == _CODEVIEW and at and length <= _LONGEST:
            data = read(at, length)
            skip = _PATH_AT.get(data[:4])
            if skip is not None:
                return data[skip:].partition(b"\0")[0].decode("utf-8", "replace") or None
    return None


def open_file(file: BinaryIO) -> File:
    """Read the headers. Raises UsageError without the file's name."""
    header = find(file.read(HEAD))
    if header is None:
        raise UsageError("a portable executable, but not of 64 bits for x86")
    strings = b""
    place, entries = header.symbols
    if place:
        file.seek(place + entries * _SYMBOL.size)
        size = int.from_bytes(file.read(4), "little")
        strings = size.to_bytes(4, "little") + _part(file, size - 4) if size > 4 else b""
    start, count = header.sections
    file.seek(start)
    data = file.read(min(count, _MOST_SECTIONS) * 40)
    rows = _SECTION.iter_unpack(data[: len(data) // 40 * 40])
    sections = [
        Section(
            _section_name(name, strings), header.image_base + at, size or stored, offset, stored, bool(flags & _CODE)
        )
        for name, size, at, stored, offset, flags in rows
    ]
    return File(header, sections, strings)


class Code(NamedTuple):
    """The functions of a file."""

    ranges: Ranges
    debug: bool
    """Whether it has DWARF line tables."""
    link_base: int


def read(opener: Opener) -> Code | None:
    """Read the functions; None: there are no symbols of any. Raises UsageError without the file's name."""
    with opener() as file:
        opened = open_file(file)
        found = _read_functions(opened, file)
        debug = any(section.name == ".debug_info" for section in opened.sections)
        return None if found is None else Code(found, debug, opened.header.image_base)


def _read_functions(opened: File, file: BinaryIO) -> Ranges | None:
    place, entries = opened.header.symbols
    if not place or not entries:
        return None
    file.seek(place)
    functions = list(_functions(opened, _part(file, entries * _SYMBOL.size)))
    ends = [section.address + section.size for section in opened.sections if section.is_code]
    return Ranges(functions, ends) if functions else None


def content(file: BinaryIO, section: Section, most: int) -> bytes:
    """Return the content of a section. Raises UsageError for more than `most` bytes."""
    size = min(section.size, section.stored)
    if size > most:
        raise UsageError(f"its section {section.name} has {size:,} bytes: more than {most:,} are not read")
    file.seek(section.offset)
    return _part(file, size)


def _part(file: BinaryIO, size: int) -> bytes:
    here = file.tell()
    if size > _TABLE or here + size > file.seek(0, os.SEEK_END):
        raise UsageError("a damaged portable executable, or one cut short")
    file.seek(here)
    return file.read(size)


def _functions(opened: File, table: bytes) -> Iterator[Function]:
    rows = _SYMBOL.iter_unpack(table[: _MOST * _SYMBOL.size])
    for name, value, number, kind, storage, more in rows:
        for _ in range(more):
            next(rows, None)
        if not 0 < number <= len(opened.sections) or storage not in (_EXTERNAL, _STATIC, _LABEL):
            continue
        section = opened.sections[number - 1]
        text = _symbol_name(name, opened.strings)
        if section.is_code and value < section.size and text and not text.startswith((".", "$")):
            rank = (kind != _FUNCTION) << 2 | text.startswith("_") << 1 | (storage != _EXTERNAL)
            yield Function(section.address + value, 0, text, rank)


def _symbol_name(field: bytes, strings: bytes) -> str:
    return _text(strings, int.from_bytes(field[4:], "little")) if field[:4] == bytes(4) else _text(field, 0)


def _section_name(field: bytes, strings: bytes) -> str:
    digits = field[1:].rstrip(b"\0")
    return _text(strings, int(digits)) if field[:1] == b"/" and digits.isdigit() else _text(field, 0)


def _text(data: bytes, at: int) -> str:
    return data[at : at + _LONGEST].partition(b"\0")[0].decode("utf-8", "replace")
