"""The functions of an ELF file: its symbol table, by pyelftools."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

from trapline.errors import UsageError

from .ranges import Function, Ranges

Opener: TypeAlias = Callable[[], BinaryIO]

MAGIC: Final = b"\x7fELF"
_SHF_ALLOC: Final = 1 << 1
_SHF_EXECINSTR: Final = 1 << 2
_NOTYPE, _FUNC, _IFUNC = 0, 2, 10
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_BINDINGS: Final = {_GLOBAL: 0, _WEAK: 1, _LOCAL: 2}
_ENTRY: Final = {32: struct.Struct("<IIIBBH"), 64: struct.Struct("<IBBHQQ")}
"""Elf32_Sym and Elf64_Sym (gABI, "Symbol Table"), read here since pyelftools takes 30 times as long."""


class Code(NamedTuple):
    """The functions of an ELF file."""

    ranges: Ranges
    debug: bool
    """Whether it has DWARF line tables."""


def present(head: bytes) -> bool:
    """Return whether a file starts like an ELF file."""
    return head.startswith(MAGIC)


def read(opener: Opener) -> Code | None:
    """Read the functions; None: there is no symbol table. Raises UsageError without the file's name."""
    try:
        with opener() as file:
            return _read(file)
    except (UsageError, OSError):
        raise
    except Exception as error:
        # On a damaged file the library raises what Python raises: KeyError, OverflowError, MemoryError, ...
        raise UsageError("a damaged ELF file, or one cut short") from error


def _read(file: BinaryIO) -> Code | None:
    from elftools.elf.elffile import ELFFile

    elf: Any = ELFFile(file)
    if elf["e_machine"] not in ("EM_386", "EM_X86_64") or not elf.little_endian:
        raise UsageError("an ELF file, but not for x86")
    if elf["e_type"] == "ET_REL":
        raise UsageError("a relocatable ELF file: its addresses are not known before it is linked")
    table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
    if table is None or not table["sh_size"] or table["sh_type"] == "SHT_NOBITS":
        return None
    code = {
        number: (section["sh_addr"], section["sh_addr"] + section["sh_size"])
        for number, section in enumerate(elf.iter_sections())
        if section["sh_flags"] & (_SHF_ALLOC | _SHF_EXECINSTR) == _SHF_ALLOC | _SHF_EXECINSTR
    }
    data, names = table.data(), elf.get_section(table["sh_link"]).data()
    functions = _functions(data, names, elf.elfclass, code)
    if not functions:
        return None
    return Code(Ranges(functions, ends=[end for _, end in code.values()]), bool(elf.has_dwarf_info(strict=True)))


def _functions(data: bytes, names: bytes, bits: int, code: dict[int, tuple[int, int]]) -> list[Function]:
    found = []
    entry = _ENTRY[bits]
    for fields in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
        if bits == 64:
            at, info, _, section, start, size = fields
        else:
            at, start, size, info, _, section = fields
        kind = info & 0xF
        if section not in code or kind not in (_NOTYPE, _FUNC, _IFUNC):
            continue
        first, end = code[section]
        if not first <= start < end:  # a marker at the end of a section
            continue
        name = names[at : names.find(b"\0", at)].decode("utf-8", "replace")
        if name and not name.startswith((".L", "$")):
            rank = (kind == _NOTYPE) << 8 | _BINDINGS.get(info >> 4, 3) << 4 | name.startswith("_")
            found.append(Function(start, min(size, end - start), name, rank))
    return found


def opener(path: Path) -> Opener:
    """Return a function that opens a file."""
    return lambda: path.open("rb")
