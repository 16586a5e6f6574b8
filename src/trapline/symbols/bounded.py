"""ELF files and DWARF by pyelftools, within bounds: a file may be damaged, or made to take all time and all memory."""

import io
import os
from typing import Any, BinaryIO, Final, NamedTuple

from trapline.errors import UsageError

from . import pe

_MOST_SECTIONS: Final = 4096
"""A linker writes some dozens; only relocatable files have more."""
_READS: Final = 1_000_000
"""Of the headers of a file: ten of each section."""
_MOST_DEBUG: Final = 400 << 20
"""Bytes of the sections of DWARF that are read together, once they are unpacked."""
_DEBUG: Final = ("info", "aranges", "abbrev", "str", "line", "ranges", "addr", "str_offsets", "line_str", "rnglists")
_NOT_NEEDED: Final = (
    "debug_frame", "eh_frame", "debug_loc", "debug_pubtypes", "debug_pubnames", "debug_loclists", "debug_sup",
    "gnu_debugaltlink", "debug_types",
)  # fmt: skip
_FORMATS: Final = ("directory_entry_format", "file_name_entry_format")
_EMPTY: Final = ("DW_FORM_flag_present", "DW_FORM_implicit_const")
"""Forms of values that take no bytes."""


class TooMuch(Exception):
    """What is asked of a file takes more reads than any sound file needs."""


class Meter:
    """Counts the reads of pyelftools, which are its work: it reads a table's fields one by one."""

    def __init__(self, reads: int) -> None:
        self.left = reads
        """How many more there may be."""

    def spend(self) -> None:
        """Count a read. Raises TooMuch."""
        self.left -= 1
        if self.left < 0:
            raise TooMuch


class Metered:
    """What pyelftools needs of an open file; each read is counted."""

    def __init__(self, file: BinaryIO, meter: Meter) -> None:
        self._read, self._tell, self.seek = file.read, file.tell, file.seek
        self._meter = meter

    def read(self, size: int = -1) -> bytes:
        """Read as the file does."""
        self._meter.spend()
        return self._read(size)

    def tell(self) -> int:
        """Return the place; it is asked for before each attribute, also before one that takes no bytes."""
        self._meter.spend()
        return self._tell()


def open_elf(file: BinaryIO) -> Any:  # noqa: ANN401  # a library without hints
    """Return the ELFFile of a file for x86. Raises UsageError for another; for a damaged one whatever there is."""
    from elftools.elf.elffile import ELFFile

    stream: Any = Metered(file, Meter(_READS))
    elf: Any = ELFFile(stream)
    if elf["e_machine"] not in ("EM_386", "EM_X86_64") or not elf.little_endian:
        raise UsageError("an ELF file, but not for x86")
    if elf["e_type"] == "ET_REL":
        raise UsageError("a relocatable ELF file: its addresses are not known before it is linked")
    if elf.num_sections() > _MOST_SECTIONS:
        raise UsageError(f"it has more than {_MOST_SECTIONS:,} sections")
    return elf


def content(elf: Any, section: Any, most: int) -> bytes:  # noqa: ANN401  # as above
    """Return the content of a section, unpacked. Raises UsageError, before it is read, for more than `most` bytes."""
    if section["sh_type"] == "SHT_NOBITS":
        return b""
    if section.data_size > most:
        raise UsageError(f"its section {section.name} has {section.data_size:,} bytes: more than {most:,} are not read")
    if section["sh_offset"] + section["sh_size"] > elf.stream.seek(0, os.SEEK_END):
        raise UsageError("a damaged ELF file, or one cut short")
    return bytes(section.data())


class _Part(NamedTuple):
    """A section of DWARF."""

    data: bytes
    offset: int
    address: int


def open_dwarf(file: BinaryIO, meter: Meter) -> Any:  # noqa: ANN401  # as above
    """Return the DWARFInfo of an ELF or PE file; its reads are counted by `meter`.

    Raises as `content`, `open_elf` and `pe.open_file`.
    """
    from elftools.dwarf.dwarfinfo import DebugSectionDescriptor, DwarfConfig, DWARFInfo

    is_pe = file.read(len(pe.MAGIC)) == pe.MAGIC
    file.seek(0)
    parts, machine, size = _of_pe(file) if is_pe else _of_elf(file)
    sections: dict[str, Any] = dict.fromkeys(
        f"{name}_sec" for name in (*_NOT_NEEDED, *(f"debug_{one}" for one in _DEBUG))
    )
    for name, (data, offset, address) in parts.items():
        stream: Any = Metered(io.BytesIO(data), meter)
        sections[f"debug_{name}_sec"] = DebugSectionDescriptor(stream, f".debug_{name}", offset, len(data), address)
    return DWARFInfo(DwarfConfig(True, machine, size), **sections)


def _of_elf(file: BinaryIO) -> tuple[dict[str, _Part], str, int]:
    elf = open_elf(file)
    room, parts = _MOST_DEBUG, dict[str, _Part]()
    for name in _DEBUG:
        section = elf.get_section_by_name(f".debug_{name}")
        if section is not None:
            data = content(elf, section, room)
            room -= len(data)
            parts[name] = _Part(data, section["sh_offset"], section["sh_addr"])
    return parts, elf.get_machine_arch(), elf.elfclass // 8


def _of_pe(file: BinaryIO) -> tuple[dict[str, _Part], str, int]:
    sections = {section.name: section for section in pe.open_file(file).sections}
    room, parts = _MOST_DEBUG, dict[str, _Part]()
    for name in _DEBUG:
        section = sections.get(f".debug_{name}")
        if section is not None:
            data = pe.content(file, section, room)
            room -= len(data)
            parts[name] = _Part(data, section.offset, 0)
    return parts, "x64", 8


def check_line_header(structs: Any, stream: Any) -> None:  # noqa: ANN401  # as above
    """Raise TooMuch for a line table from DWARF 5 whose files have no fields that take bytes.

    pyelftools would make as many as the header says, without a read. `stream` is at the header.
    """
    from elftools.construct import Container

    context = Container()
    for part in structs.Dwarf_lineprog_header.subcons:
        found = part._parse(stream, context)  # noqa: SLF001  # there is no other way to read a header in part
        setattr(context, part.name, found)
        if part.name in _FORMATS and found is not None and all(entry.form in _EMPTY for entry in found):
            raise TooMuch
        if part.name == _FORMATS[-1]:
            return
