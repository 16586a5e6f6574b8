"""ELF files with sections, built from their fields: also such as no linker writes."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

CODE, TABLE, STRINGS, DATA = 1, 2, 3, 1
START: Final = 0x10_0000
Section: TypeAlias = tuple[str, int, int, int, bytes, int]
"""Name, type, flags, address, content, link."""


def elf(sections: Sequence[Section]) -> bytes:
    """Return a file of sections."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    rows, content = [bytes(64)], b""
    for name, kind, flags, address, data, link in [*sections, (".shstrtab", STRINGS, 0, 0, names, 0)]:
        offset = 64 + len(content)
        content += data
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        size = 24 * (kind == TABLE)
        rows.append(struct.pack("<IIQQQQIIQQ", at, kind, flags, address, offset, len(data), link, 0, 1, size))
    header = struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64 + len(content), 0, 64, 56, 0, 64, len(rows), len(rows) - 1
    )
    return b"\x7fELF\x02\x01\x01" + bytes(9) + header + content + b"".join(rows)


def with_symbols(symbols: Iterable[tuple[int, int, int]], strings: bytes, *more: Section) -> bytes:
    """Return a file with functions: (offset of the name, address, size)."""
    table = bytes(24) + b"".join(struct.pack("<IBBHQQ", at, 0x12, 0, 1, start, size) for at, start, size in symbols)
    return elf(
        [
            (".text", CODE, 6, START, bytes(0x1000), 0),
            (".symtab", TABLE, 0, 0, table, 3),
            (".strtab", STRINGS, 0, 0, strings, 0),
            *more,
        ]
    )


def compressed(name: str, size: int, data: bytes) -> Section:
    """Return a compressed section; `size` is what its header says."""
    return name, DATA, 0x800, 0, struct.pack("<IIQQ", 1, 0, size, 1) + zlib.compress(data, 9), 0


def debug(name: str, data: bytes) -> Section:
    """Return a section with debug information."""
    return name, DATA, 0, 0, data, 0


ABBREVIATION: Final = bytes([1, 0x11, 0, 0x10, 0x17, 0x11, 0x01, 0x12, 0x07, 0, 0, 0])
"""A unit with its line table, low_pc and high_pc."""


def unit(number: int = 0, lines: int = 0, abbreviation: int = 0) -> bytes:
    """Return a compile unit of DWARF 4 with 16 bytes of code."""
    body = struct.pack("<HIBBIQQ", 4, abbreviation, 8, 1, lines, START + 16 * number, 16)
    return struct.pack("<I", len(body)) + body


def line_table(count: int, names: bytes = b"\0a.c\0\0\0\0\0", version: int = 4) -> bytes:
    """Return a table of `count` rows, a byte each; `names` are directories and files as the version has them."""
    header = struct.pack("<BBBbBB", 1, 1, 1, -1, 4, 10) + bytes([0, 1, 1, 1, 1, 0, 0, 0, 1]) + names
    program = b"\0\x09\x02" + struct.pack("<Q", START) + bytes([15]) * count + b"\0\x01\x01"
    body = struct.pack("<H", version) + (b"\x08\0" if version == 5 else b"")
    body += struct.pack("<I", len(header)) + header + program
    return struct.pack("<I", len(body)) + body


def named(*more: Section) -> bytes:
    """Return a file with one function, and more sections."""
    return with_symbols([(1, START, 0x100)], b"\0main\0", *more)


def with_lines(info: bytes, abbreviations: bytes, lines: bytes) -> bytes:
    """Return a file with one function and DWARF."""
    return named(debug(".debug_info", info), debug(".debug_abbrev", abbreviations), debug(".debug_line", lines))
