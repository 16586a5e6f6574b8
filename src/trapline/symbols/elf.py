"""The functions and variables of an ELF file: its symbol table (gABI, "Symbol Table")."""

import contextlib
import struct
from collections.abc import Callable, Collection, Iterator
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeAlias

from trapline.errors import UsageError

from .ranges import Function, Ranges
from .sections import SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, Elf, Section

Opener: TypeAlias = Callable[[], BinaryIO]

MAGIC: Final = b"\x7fELF"
_NOTYPE, _OBJECT, _FUNC, _IFUNC = 0, 1, 2, 10
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_BINDINGS: Final = {_GLOBAL: 0, _WEAK: 1, _LOCAL: 2}
_ENTRY: Final = {32: struct.Struct("<IIIBBH"), 64: struct.Struct("<IBBHQQ")}
"""Elf32_Sym and Elf64_Sym."""
_TABLE: Final = 128 << 20
"""Bytes of a symbol table, and of its names, that are read."""
MOST: Final = 1_000_000
"""Functions of a file."""
LONGEST: Final = 4096
"""Bytes of a name that are kept."""
_NAMES: Final = 256 << 20
"""Bytes of all names: many symbols may share one long name, or the end of it."""


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
    with _damage_in_words(), opener() as file:
        return _read(file)


def variables(opener: Opener) -> dict[str, int]:
    """Return the addresses of the variables by name; of several of one name a global one. Raises like `read`."""
    with _damage_in_words(), opener() as file:
        elf = Elf(file)
        if (table := _symbol_table(elf)) is None:
            return {}
        named = _symbols(elf, table, _places(elf, 0), (_NOTYPE, _OBJECT))
        return {each.name: each.start for each in sorted(named, key=attrgetter("rank"), reverse=True)}


@contextlib.contextmanager
def _damage_in_words() -> Iterator[None]:
    """Raise UsageError for what a damaged table leads to: a section or a name that there is not."""
    try:
        yield
    except (IndexError, struct.error) as error:
        raise UsageError("a damaged ELF file, or one cut short") from error


def _read(file: BinaryIO) -> Code | None:
    elf = Elf(file)
    if (table := _symbol_table(elf)) is None:
        return None
    code = _places(elf, SHF_EXECINSTR)
    functions = _symbols(elf, table, code, (_NOTYPE, _FUNC, _IFUNC))
    if not functions:
        return None
    return Code(Ranges(functions, ends=[end for _, end in code.values()]), elf.find(".debug_info") is not None)


def _symbol_table(elf: Elf) -> Section | None:
    """Return the symbol table; None: there is none."""
    table = elf.find(".symtab") or elf.find(".dynsym")
    return None if table is None or not table.size or table.kind == SHT_NOBITS else table


def _places(elf: Elf, executable: int) -> dict[int, tuple[int, int]]:
    """Return the addresses of the sections in memory that hold code, or of those that do not, by number."""
    return {
        number: (section.address, section.address + section.size)
        for number, section in enumerate(elf.sections)
        if section.flags & (SHF_ALLOC | SHF_EXECINSTR) == SHF_ALLOC | executable
    }


def _symbols(elf: Elf, table: Section, sections: dict[int, tuple[int, int]], kinds: Collection[int]) -> list[Function]:
    found = []
    entry = _ENTRY[elf.bits]
    data, names = elf.read(table, _TABLE), elf.read(elf.sections[table.link], _TABLE)
    room = _NAMES
    for fields in entry.iter_unpack(memoryview(data)[: len(data) // entry.size * entry.size]):
        if elf.bits == 64:
            at, info, _, section, start, size = fields
        else:
            at, start, size, info, _, section = fields
        kind = info & 0xF
        if section not in sections or kind not in kinds:
            continue
        first, end = sections[section]
        if not first <= start < end:  # a marker at the end of a section
            continue
        name = _name(names, at)
        if name and not name.startswith((".L", "$")):
            rank = (kind == _NOTYPE) << 8 | _BINDINGS.get(info >> 4, 3) << 4 | name.startswith("_")
            found.append(Function(start, min(size, end - start), name, rank))
            room -= len(name)
            if len(found) > MOST or room < 0:
                raise UsageError(f"its symbols are more than {MOST:,}, or their names longer than {_NAMES:,} bytes")
    return found


def _name(names: bytes, at: int) -> str:
    """Return a name; of a very long one its start."""
    end = names.find(b"\0", at, at + LONGEST)
    cut = end < 0 and len(names) > at + LONGEST
    return names[at : at + LONGEST if end < 0 else end].decode("utf-8", "replace") + ("..." if cut else "")


def opener(path: Path) -> Opener:
    """Return a function that opens a file."""
    return lambda: path.open("rb")
