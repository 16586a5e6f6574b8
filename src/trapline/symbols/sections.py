"""The sections of an ELF file for x86 (gABI, "Sections"), each read within bounds, compressed ones too."""

import io
import os
import struct
import zlib
from typing import BinaryIO, Final, NamedTuple

from trapline.errors import UsageError

SHF_ALLOC: Final = 1 << 1
SHF_EXECINSTR: Final = 1 << 2
_SHF_COMPRESSED: Final = 1 << 11
SHT_NOBITS: Final = 8
_IDENT: Final = b"\x7fELF"
_EM_386, _EM_X86_64 = 3, 62
_ET_REL: Final = 1
_HEADER: Final = {32: struct.Struct("<HHIIIIIHHHHHH"), 64: struct.Struct("<HHIQQQIHHHHHH")}
_ENTRY: Final = {32: struct.Struct("<10I"), 64: struct.Struct("<IIQQQQIIQQ")}
_COMPRESSED: Final = {32: struct.Struct("<III"), 64: struct.Struct("<IIQQ")}
"""Elf32_Chdr and Elf64_Chdr."""
_ZLIB: Final = 1
_MOST: Final = 1 << 16
"""Sections: more need a form of the header that no linker of x86 writes."""
_LONGEST_NAME: Final = 64
_NAMES: Final = 1 << 20
"""Bytes of all names."""


class Section(NamedTuple):
    """A section header."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class Part:
    """A section that is read in parts, while its file is open."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset = file, offset
        self.size: int = size

    def part(self, offset: int, size: int) -> bytes:
        """Return bytes, fewer at the end."""
        self._file.seek(self._offset + offset)
        return self._file.read(max(min(size, self.size - offset), 0))


class Elf:
    """The sections of an open file."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the section headers. Raises UsageError without the file's name."""
        self._file = file
        self._end = file.seek(0, os.SEEK_END)
        ident = self._bytes(0, 16)
        if ident[:4] != _IDENT or ident[4] not in (1, 2):
            raise _damaged()
        self.bits: int = 32 * ident[4]
        header = _HEADER[self.bits]
        kind, machine, _, _, _, table, *_, entry_size, count, names = header.unpack(self._bytes(16, header.size))
        if machine not in (_EM_386, _EM_X86_64) or ident[5] != 1:
            raise UsageError("an ELF file, but not for x86")
        if kind == _ET_REL:
            raise UsageError("a relocatable ELF file: its addresses are not known before it is linked")
        self.sections = self._sections(table, entry_size, count, names) if count else []

    def find(self, name: str) -> Section | None:
        """Return the first section of a name."""
        return next((section for section in self.sections if section.name == name), None)

    def content(self, name: str, most: int) -> bytes:
        """Return the content of a section of a name; empty: there is none. Raises UsageError as `read`."""
        section = self.find(name)
        return b"" if section is None else self.read(section, most)

    def part(self, name: str, most: int) -> Part:
        """Return a section to be read in parts: of a compressed one at most `most` bytes. Raises UsageError."""
        section = self.find(name)
        if section is None:
            return Part(io.BytesIO(), 0, 0)
        if section.flags & _SHF_COMPRESSED:
            data = self.read(section, most)
            return Part(io.BytesIO(data), 0, len(data))
        return Part(self._file, section.offset, min(section.size, max(self._end - section.offset, 0)))

    def size(self, section: Section) -> int:
        """Return the size of a section's content: where it is compressed, as its header says."""
        if not section.flags & _SHF_COMPRESSED:
            return section.size
        header = _COMPRESSED[self.bits]
        if section.size < header.size:
            raise _damaged()
        kind, *_, size, _ = header.unpack(self._bytes(section.offset, header.size))
        if kind != _ZLIB:
            raise UsageError(f"its section {section.name} is not compressed by zlib")
        return int(size)

    def read(self, section: Section, most: int) -> bytes:
        """Return the content of a section. Raises UsageError where it is larger than `most` bytes."""
        size = self.size(section)
        if size > most:
            raise UsageError(f"its section {section.name} has {size:,} bytes: more than {most:,} are not read")
        if section.kind == SHT_NOBITS:
            return b""
        if not section.flags & _SHF_COMPRESSED:
            return self._bytes(section.offset, section.size)
        start = _COMPRESSED[self.bits].size
        data = self._bytes(section.offset + start, max(section.size - start, 0))
        try:
            unpacked = zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            raise _damaged() from error
        if len(unpacked) != size:
            raise _damaged()
        return unpacked

    def _sections(self, table: int, entry_size: int, count: int, names: int) -> list[Section]:
        entry = _ENTRY[self.bits]
        if entry_size < entry.size:
            raise _damaged()
        data = io.BytesIO(self._bytes(table, count * entry_size))
        rows = [entry.unpack(data.read(entry_size)[: entry.size]) for _ in range(count)]
        text = b""
        if names < count:
            offset, size = rows[names][4:6]
            text = self._bytes(offset, min(size, _NAMES, max(self._end - offset, 0)))
        return [Section(_name(text, row[0]), *row[1:7]) for row in rows]

    def _bytes(self, offset: int, size: int) -> bytes:
        """Return bytes of the file. Raises UsageError beyond its end, before any is read."""
        if offset + size > self._end:
            raise _damaged()
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) < size:
            raise _damaged()
        return data


def _name(text: bytes, at: int) -> str:
    end = text.find(b"\0", at, at + _LONGEST_NAME)
    return text[at : end if end >= 0 else at + _LONGEST_NAME].decode("utf-8", "replace")


def _damaged() -> UsageError:
    return UsageError("a damaged ELF file, or one cut short")
