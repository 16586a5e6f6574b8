"""A set of exceptions as the user writes it, parsed into a mask and formatted from one.

    all   none   pf,gp   all,!pf   0x6040   14,#gp

Items are read from left to right: `!` takes away, everything else adds. A list that begins with
`!` begins with `all`. A hexadecimal number is a mask of vectors, a decimal one is a vector.
"""

import re
from difflib import get_close_matches
from typing import Final, NamedTuple, Self

from trapline.errors import UsageError
from trapline.typed import read_integer, shortened

from .vectors import FORCEABLE, VECTORS, Vector, VectorFacts, bits, mnemonic

_ALIASES: Final = {"xf": Vector.XM}
NAMES: Final[dict[str, int]] = {v.name.lower(): v.value for v in Vector} | {
    name: vector.value for name, vector in _ALIASES.items()
}
"""Vectors by their names in lower case."""


class ParsedMask(NamedTuple):
    """A mask that holds forceable vectors only, and what had to be left out of it."""

    mask: int
    dropped: tuple[VectorFacts, ...]
    """Vectors that a hexadecimal mask asked for and that are refused: worth a warning, each."""


def parse_mask(text: str) -> ParsedMask:
    """Read a mask; a refused or unknown vector that is named on its own is a UsageError."""
    items = [item for item in re.split(r"[\s,]+", text.strip().lower()) if item]
    if not items:
        raise UsageError("no exception is named; write all, none, or names such as pf,gp")
    mask = FORCEABLE if items[0].startswith("!") else 0
    dropped = 0
    for item in items:
        if item.startswith("!"):
            taken, _ = _read(item[1:])
            mask &= ~taken
            dropped &= ~taken
        else:
            added, is_mask = _read(item)
            if not is_mask:
                _refuse(added)
            mask |= added & FORCEABLE
            dropped |= added & ~FORCEABLE
    return ParsedMask(mask, tuple(VECTORS[vector] for vector in bits(dropped)))


def parse_some(text: str) -> int:
    """Return a mask of exceptions that are named as `parse_mask` reads them; raises UsageError if none is left."""
    mask = parse_mask(text).mask
    if not mask:
        raise UsageError(f"{shortened(text.strip())} leaves no exception; write names such as pf,gp")
    return mask


class ExceptionMask(int):
    """A set of exceptions as a bit mask, bit 0 for #DE; written as `all,!pf` or as a number.

    Raises UsageError for vectors that may not be forced, and for what is not a set of exceptions.
    """

    def __new__(cls, exceptions: str | int = 0) -> Self:
        """Read a set; a hexadecimal mask in text loses the vectors that may not be forced."""
        mask = parse_mask(exceptions).mask if isinstance(exceptions, str) else exceptions
        if not 0 <= mask < 1 << len(VECTORS):
            raise UsageError(f"{mask:#x} is not a mask of {len(VECTORS)} exception vectors")
        _refuse(mask)
        return super().__new__(cls, mask)

    def vectors(self) -> list[Vector]:
        """Return the exceptions in it, in the order of their vectors."""
        return [Vector(vector) for vector in bits(self)]

    def __str__(self) -> str:
        return format_mask(self)

    def __repr__(self) -> str:
        return f"ExceptionMask({format_mask(self)!r})"


def format_mask(mask: int) -> str:
    """Format a mask as `parse_mask` reads it, in the shorter of two ways."""
    if not mask:
        return "none"
    if mask & FORCEABLE == mask:
        missing = FORCEABLE & ~mask
        if missing.bit_count() < mask.bit_count():
            return ",".join(["all", *(f"!{_word(vector)}" for vector in bits(missing))])
    return ",".join(_word(vector) for vector in bits(mask))


def _word(vector: int) -> str:
    name = mnemonic(vector).removeprefix("#").lower()
    return name if name in NAMES else str(vector)


def _read(item: str) -> tuple[int, bool]:
    """Return the vectors of one item, and whether it is a mask rather than one vector."""
    if item == "all":
        return FORCEABLE, True
    if item == "none":
        return 0, True
    if re.fullmatch(r"0x[0-9a-f]+", item):
        value = read_integer(item)
        if value is None or value >> len(VECTORS):
            raise UsageError(f"{shortened(item)} is wider than the {len(VECTORS)} exception vectors")
        return value, True
    if re.fullmatch(r"[0-9]+", item):
        vector = read_integer(item)
        if vector is None or vector >= len(VECTORS):
            raise UsageError(f"{shortened(item)} is not an exception vector: they are 0 to {len(VECTORS) - 1}")
        return 1 << vector, False
    name = item.removeprefix("#")
    if name not in NAMES:
        close = get_close_matches(name, [*NAMES, "all", "none"], n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"{shortened(item)!r} names no exception{hint}")
    return 1 << NAMES[name], False


def _refuse(wanted: int) -> None:
    for vector in bits(wanted & ~FORCEABLE):
        row = VECTORS[vector]
        raise UsageError(f"{row.mnemonic} ({row.name}) cannot be forced: {row.refused}")
