"""System.map and /proc/kallsyms: lines of `address type name`, with a module's name in brackets behind it (nm(1))."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from trapline.arch.paging import PAGE
from trapline.errors import UsageError

from .ranges import Function, Ranges

_LINE: Final = re.compile(rb"([0-9a-fA-F]{8,16}) ([A-Za-z?]) ([^\s]+)(?:\s+\[[^\]]*\])?\s*")
_TEXT: Final = b"TtWw"
_MARKERS: Final = re.compile(r"_[se]?(text|inittext)|_end|__\w+_(start|end)|_[es]\w*text")
"""Names that a linker script gives to places, not to functions."""
_FAR: Final = 1 << 20
"""No function of a kernel is that long."""


def present(head: bytes) -> bool:
    """Say whether a file starts as such a file does."""
    return _LINE.match(head) is not None


def parse(data: bytes) -> Ranges:
    """Read the functions of a file; the message of a UsageError lacks the file's name.

    The next name of any kind ends a function. Where names are far apart, it ends with its page: code is mapped in
    pages, and modules lie anywhere.
    """
    places: list[int] = []
    functions: list[Function] = []
    for number, (address, kind, name) in enumerate(_lines(data)):
        places.append(address)
        if kind in _TEXT:
            functions.append(Function(address, 0, name, _rank(kind, name, number)))
    if not any(places):
        raise UsageError("its addresses are all zero: read it as root, with kernel.kptr_restrict at 0 or 1")
    if not functions:
        first = data.split(b"\n", 1)[0].decode("ascii", "replace").strip()
        raise UsageError(f"no functions are in it, but: {first}")
    functions = [function for function in functions if not _MARKERS.fullmatch(function.name)] or functions
    return Ranges(functions, ends=_ends(places))


def _lines(data: bytes) -> Iterator[tuple[int, bytes, str]]:
    for number, line in enumerate(data.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            if line.strip():
                raise UsageError(f"line {number} is no line of a System.map or of kallsyms")
            continue
        yield int(match[1], 16), match[2], match[3].decode("utf-8", "replace")


def _rank(kind: bytes, name: str, number: int) -> int:
    """Global names before local and weak ones, those without underscores before those with, and then the first."""
    underscores = min(len(name) - len(name.lstrip("_")), 3)
    return b"TtWw".index(kind) << 40 | underscores << 32 | number


def _ends(places: Iterable[int]) -> list[int]:
    """Return every place, and behind the last before a gap the end of its page."""
    ends = sorted(set(places))
    gaps = [place for place, following in pairwise((*ends, ends[-1] + _FAR + 1)) if following - place > _FAR]
    return sorted({*ends, *((place // PAGE + 1) * PAGE for place in gaps)})
