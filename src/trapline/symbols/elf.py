"""The functions and variables of an ELF file: its symbol table, by pyelftools."""

import contextlib
import struct
from collections.abc import Callable, Collection, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

from trapline.errors import UsageError

from .bounded import content, open_elf
from .ranges import Function, Ranges

Opener: TypeAlias = Callable[[], BinaryIO]

MAGIC: Final = b"\x7fELF"
_SHF_ALLOC: Final = 1 << 1
_SHF_EXECINSTR: Final = 1 << 2
_NOTYPE, _OBJECT, _FUNC, _IFUNC = 0, 1, 2, 10
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_BINDINGS: Final = {_GLOBAL: 0, _WEAK: 1, _LOCAL: 2}
_ENTRY: Final = {32: struct.Struct("<IIIBBH"), 64: struct.Struct("<IBBHQQ")}
"""Elf32_Sym and Elf64_Sym (gABI, "Symbol Table"), read here since pyelftools takes 30 times as long."""
_TABLE: Final = 128 << 20
"""Bytes of a symbol table, and of its names, that are read."""
MOST: Final = 1_000_000
"""Functions of a file."""
LONGEST: Final = 4096
"""Bytes of a name that are kept."""
_BUILD_ID: Final = ".note.gnu.build-id"
_NOTE: Final = 16
"""Bytes of a note before its content: three numbers and the name, GNU."""
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
        elf, table = _symbol_table(file)
        if table is None:
            return {}
        named = _symbols(elf, table, _places(elf, 0), (_NOTYPE, _OBJECT))
        return {each.name: each.start for each in sorted(named, key=attrgetter("rank"), reverse=True)}


@contextlib.contextmanager
def _damage_in_words() -> Iterator[None]:
    """Raise UsageError for what the library raises on a damaged file, as Python does: KeyError, OverflowError, ..."""
    try:
        yield
    except (UsageError, OSError, MemoryError):
        raise
    except Exception as error:
        raise UsageError("a damaged ELF file, or one cut short") from error


def _read(file: BinaryIO) -> Code | None:
    elf, table = _symbol_table(file)
    if table is None:
        return None
    code = _places(elf, _SHF_EXECINSTR)
    functions = _symbols(elf, table, code, (_NOTYPE, _FUNC, _IFUNC))
    if not functions:
        return None
    return Code(Ranges(functions, ends=[end for _, end in code.values()]), bool(elf.has_section(".debug_info")))


def _symbol_table(file: BinaryIO) -> tuple[Any, Any]:
    """Return the ELF file and its symbol table; None: it has none."""
    elf = open_elf(file)
    table = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
    return elf, None if table is None or not table["sh_size"] or table["sh_type"] == "SHT_NOBITS" else table


def _places(elf: Any, executable: int) -> dict[int, tuple[int, int]]:  # noqa: ANN401  # a library without hints
    """Return the addresses of the sections in memory that hold code, or of those that do not, by number."""
    return {
        number: (section["sh_addr"], section["sh_addr"] + section["sh_size"])
        for number, section in enumerate(elf.iter_sections())
        if section["sh_flags"] & (_SHF_ALLOC | _SHF_EXECINSTR) == _SHF_ALLOC | executable
    }


def _symbols(
    elf: Any,  # noqa: ANN401  # a library without hints
    table: Any,  # noqa: ANN401
    sections: dict[int, tuple[int, int]],
    kinds: Collection[int],
) -> list[Function]:
    found = []
    bits: int = elf.elfclass
    entry = _ENTRY[bits]
    data, names = content(elf, table, _TABLE), content(elf, elf.get_section(table["sh_link"]), _TABLE)
    room = _NAMES
    for fields in entry.iter_unpack(memoryview(data)[: len(data) // entry.size * entry.size]):
        if bits == 64:
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


def build_id(path: Path) -> str | None:
    """Return the build id of an ELF file in hexadecimal; None: it has none, or cannot be read."""
    with contextlib.suppress(OSError, ValueError, UsageError):
        if not path.is_file():
            return None
        with _damage_in_words(), path.open("rb") as file:
            if not present(file.read(len(MAGIC))):
                return None
            section = open_elf(file).get_section_by_name(_BUILD_ID)
            if section is None or not 0 < section["sh_size"] <= LONGEST:
                return None
            data = section.data()
            size = int.from_bytes(data[4:8], "little")
            return data[_NOTE : _NOTE + size].hex() or None
    return None


def opener(path: Path) -> Opener:
    """Return a function that opens a file."""
    return lambda: path.open("rb")
