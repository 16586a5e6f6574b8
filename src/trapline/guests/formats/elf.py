"""What of ELF a loader needs: class, machine, entry, program headers, and Xen's PVH note."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from trapline.errors import GuestImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"\x7fELF"
EM_386 = 3
EM_X86_64 = 62
PT_LOAD = 1
PT_INTERP = 3
PT_NOTE = 4
XEN_ELFNOTE_PHYS32_ENTRY = 18  # xen/include/public/elfnote.h

_MACHINES = {8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S/390", 40: "ARM", 183: "AArch64", 243: "RISC-V"}
_TYPES = {1: "a relocatable object (.o)", 4: "a core dump"}
_HEADER = {1: struct.Struct("<HHIIIIIHHHHHH"), 2: struct.Struct("<HHIQQQIHHHHHH")}  # from e_type on
_IDENT_SIZE = 16
_LARGEST_ENTRY = 256  # a program header has 32 or 56 bytes, in a later ELF perhaps more
_NOTES_APART = 8  # bytes that alignment may put between two
_NOTES_LIMIT = 1 << 20  # of all segments together; a vmlinux has some hundred bytes of notes


class Segment(NamedTuple):
    """A program header. `address` is the gpa, `virtual` the address that the program knows it by."""

    kind: int
    offset: int
    virtual: int
    address: int
    file_size: int
    memory_size: int
    alignment: int


class ElfImage(NamedTuple):
    """What was read of an ELF file; `pvh_entry` is a gpa, or None without a PVH note."""

    bits: int
    machine: int
    pvh_entry: int | None
    virtual_entry: int
    segments: tuple[Segment, ...]

    @property
    def entry(self) -> int:
        """The gpa of the entry: where the segment that holds it is loaded; the entry as it is where none does."""
        for segment in self.loaded:
            if segment.virtual <= self.virtual_entry < segment.virtual + segment.memory_size:
                return self.virtual_entry - segment.virtual + segment.address
        return self.virtual_entry

    @property
    def loaded(self) -> list[Segment]:
        """The segments that go to memory."""
        return [segment for segment in self.segments if segment.kind == PT_LOAD and segment.memory_size]

    @property
    def notes(self) -> list[tuple[int, int]]:
        """Where in the file are notes and nothing else: start and end, in order and apart."""
        found: list[tuple[int, int]] = []
        for segment in sorted((each for each in self.segments if each.kind == PT_NOTE), key=lambda each: each.offset):
            start, end = segment.offset, segment.offset + segment.file_size
            if found and start <= found[-1][1] + _NOTES_APART:
                start, end = found[-1][0], max(found[-1][1], end)
                found.pop()
            found.append((start, end))
        return found

    @property
    def needs_loader(self) -> bool:
        """Whether it names a dynamic loader: a program for an operating system."""
        return any(segment.kind == PT_INTERP for segment in self.segments)

    @property
    def name(self) -> str:
        """The file's type, for the user."""
        return f"{self.bits}-bit ELF for {'x86-64' if self.machine == EM_X86_64 else 'i386'}"


class _Table(NamedTuple):
    offset: int
    entry_size: int
    entries: int

    @property
    def end(self) -> int:
        return self.offset + self.entry_size * self.entries

    def is_sound(self, bits: int) -> bool:
        """Whether its entries have a size that they may have."""
        return (32 if bits == 32 else 56) <= self.entry_size <= _LARGEST_ENTRY


def present(head: bytes) -> bool:
    """Whether the file starts as an ELF file does."""
    return head.startswith(MAGIC)


def loaded_size(head: bytes, size: int, part: Callable[[int, int], bytes]) -> int:
    """Return how much of a file of `size` bytes a loader needs, from its start: headers, segments and notes.

    `part(offset, size)` returns bytes of the file. Of a damaged file it is 0.
    """
    header = _HEADER.get(head[4]) if len(head) > _IDENT_SIZE + _HEADER[2].size else None
    if header is None:
        return 0
    _, _, _, _, place, _, _, _, entry_size, entries, *_ = header.unpack_from(head, _IDENT_SIZE)
    table, bits = _Table(place, entry_size, entries), 32 * head[4]
    if not table.is_sound(bits) or table.end > size:
        return 0
    ends = [table.end]
    for segment in _entries(part(table.offset, table.end - table.offset), bits, entry_size):
        if segment.kind == PT_LOAD:
            ends.append(segment.offset + segment.file_size)
        elif segment.kind == PT_NOTE:
            ends.append(segment.offset + min(segment.file_size, _NOTES_LIMIT))
    return max(end for end in ends if end <= size)


def parse(content: bytes, size: int) -> ElfImage:
    """Read headers and notes of a file of `size` bytes, of which `content` is what a loader needs.

    Raises GuestImageError for what no x86 PC can boot and for a file cut short.
    """
    elf_class = content[4] if len(content) > 4 else 1
    if elf_class not in _HEADER:
        raise GuestImageError(f"ELF file of unknown class {elf_class}")
    header = _HEADER[elf_class]
    if len(content) < _IDENT_SIZE + header.size:
        raise GuestImageError(f"ELF file cut short: {len(content)} bytes end inside the ELF header")
    if content[5] != 1:
        raise GuestImageError("big-endian ELF file: not a guest for an x86 PC")
    kind, machine, _, entry, table, _, _, _, entry_size, entries, *_ = header.unpack_from(content, _IDENT_SIZE)
    if machine not in (EM_386, EM_X86_64):
        raise GuestImageError(f"ELF file for {_MACHINES.get(machine, f'machine {machine}')}: not a guest for an x86 PC")
    if kind in _TYPES:
        raise GuestImageError(f"ELF file that is {_TYPES[kind]}, not an executable: link it first")
    bits = 32 * elf_class
    pvh_entry: int | None = None
    segments = tuple(_segments(content, size, bits, _Table(table, entry_size, entries)))
    unread = _NOTES_LIMIT
    for segment in segments:
        if segment.kind == PT_NOTE and pvh_entry is None:
            length = min(segment.file_size, unread)
            pvh_entry = _pvh_entry(content[segment.offset : segment.offset + length], segment.alignment)
            unread -= length
    return ElfImage(bits, machine, pvh_entry, entry, segments)


def _segments(content: bytes, size: int, bits: int, table: _Table) -> Iterator[Segment]:
    if table.entries == 0:
        raise GuestImageError("ELF file without program headers: nothing in it can be loaded")
    if not table.is_sound(bits):
        raise GuestImageError(f"ELF file with program headers of {table.entry_size} bytes: damaged")
    if table.end > size:
        raise GuestImageError(f"ELF file cut short: its program headers end at {table.end}, the file at {size}")
    for segment in _entries(content[table.offset : table.end], bits, table.entry_size):
        kind, offset, _, _, file_size, memory_size, _ = segment
        if kind in (PT_LOAD, PT_NOTE) and file_size and offset + file_size > size:
            raise GuestImageError(f"ELF file cut short: a segment ends at {offset + file_size}, the file at {size}")
        if kind == PT_LOAD and file_size > memory_size:
            raise GuestImageError(f"ELF file with a segment of {file_size} bytes for {memory_size} in memory: damaged")
        yield segment


def _entries(table: bytes, bits: int, entry_size: int) -> Iterator[Segment]:
    for start in range(0, len(table) - entry_size + 1, entry_size):
        if bits == 32:
            kind, offset, virtual, gpa, file_size, memory_size, _, alignment = struct.unpack_from("<8I", table, start)
        else:
            kind, _, *places = struct.unpack_from("<IIQQQQQQ", table, start)
            offset, virtual, gpa, file_size, memory_size, alignment = places
        yield Segment(kind, offset, virtual, gpa, file_size, memory_size, alignment)


def _pvh_entry(notes: bytes, alignment: int) -> int | None:
    # gABI, "Note Section": name and descriptor are each padded to the segment's alignment, 4 unless it
    # says 8.
    pad = 8 if alignment == 8 else 4
    at = 0
    while at + 12 <= len(notes):
        name_size, descriptor_size, kind = struct.unpack_from("<III", notes, at)
        name = notes[at + 12 : at + 12 + name_size]
        start = at + -(-(12 + name_size) // pad) * pad
        descriptor = notes[start : start + descriptor_size]
        if kind == XEN_ELFNOTE_PHYS32_ENTRY and name.rstrip(b"\0") == b"Xen" and len(descriptor) >= 4:
            return int.from_bytes(descriptor[:4], "little")
        at = start + -(-descriptor_size // pad) * pad
    return None
