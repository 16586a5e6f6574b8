"""System.map and /proc/kallsyms: lines of `address type name`, and in brackets the module's name (nm(1))."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import BinaryIO, Final

from trapline.arch.paging import PAGE
from trapline.errors import UsageError

from .ranges import Function, Ranges

_LINE: Final = re.compile(rb"([0-9a-fA-F]{8,16}) ([A-Za-z?]) ([^\s]+)(?:\s+\[[^\]]*\])?\s*")
_TEXT: Final = b"TtWw"
_DATA: Final = b"DdBbRrVv"
_MARKERS: Final = re.compile(r"_[se]?(text|inittext)|_end|__\w+_(start|end)|_[es]\w*text")
"""Symbols of a linker script: they are not functions."""
_LONGEST: Final = 4096
"""Bytes of a line."""
_MOST: Final = 2_000_000
"""Symbols of a file."""
_FAR: Final = 1 << 20
"""Bytes: a kernel's function is shorter."""


def present(head: bytes) -> bool:
    """Return whether a file starts like a System.map or kallsyms."""
    return _LINE.match(head) is not None


def parse(file: BinaryIO) -> Ranges:
    """Read the functions of a file. Raises UsageError without the file's name.

    A function ends at the next symbol of any kind, or if that is far, at the end of its page: code is mapped in pages,
    and modules are loaded anywhere.
    """
    places: list[int] = []
    functions: list[Function] = []
    for number, (address, kind, name) in enumerate(_lines(file)):
        places.append(address)
        if number == _MOST:
            raise UsageError(f"it has more than {_MOST:,} symbols")
        if kind in _TEXT:
            functions.append(Function(address, 0, name, _rank(kind, name, number)))
    if not any(places):
        raise UsageError("its addresses are all zero: read it as root, with kernel.kptr_restrict at 0 or 1")
    if not functions:
        file.seek(0)
        first = file.readline(_LONGEST).decode("ascii", "replace").strip()
        raise UsageError(f"it has no functions; its first line is: {first}")
    functions = [function for function in functions if not _MARKERS.fullmatch(function.name)] or functions
    return Ranges(functions, ends=_ends(places))


def variables(opener: Callable[[], BinaryIO]) -> dict[str, int]:
    """Return the addresses of the variables of a file by name; of several of one name a global one."""
    with opener() as file:
        named = [(kind.islower(), name, address) for address, kind, name in _lines(file) if kind in _DATA]
    return {name: address for _, name, address in sorted(named, reverse=True)}


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, str]]:
    number = 0
    while line := file.readline(_LONGEST + 1):
        number += 1
        match = _LINE.fullmatch(line) if len(line) <= _LONGEST else None
        if match is None:
            if line.strip():
                raise UsageError(f"line {number} is not one of a System.map or of kallsyms")
            continue
        yield int(match[1], 16), match[2], match[3].decode("utf-8", "replace")


def _rank(kind: bytes, name: str, number: int) -> int:
    """Return the rank: global symbols before local and weak ones, then by leading underscores, then by line."""
    underscores = min(len(name) - len(name.lstrip("_")), 3)
    return b"TtWw".index(kind) << 40 | underscores << 32 | number


def _ends(places: Iterable[int]) -> list[int]:
    """Return all addresses, and before each gap the end of the page of the last one."""
    ends = sorted(set(places))
    gaps = [place for place, following in pairwise((*ends, ends[-1] + _FAR + 1)) if following - place > _FAR]
    return sorted({*ends, *((place // PAGE + 1) * PAGE for place in gaps)})
