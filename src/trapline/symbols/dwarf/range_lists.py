"""Lists of ranges of addresses: .debug_ranges (DWARF 4, 2.17.3), and since DWARF 5 .debug_rnglists (2.17.3)."""

from collections.abc import Callable, Iterator

from .cursor import Cursor, Damaged, Steps
from .forms import Shape

_END, _BASEX, _STARTX_ENDX, _STARTX_LENGTH, _OFFSETS, _BASE, _START_END, _START_LENGTH = range(8)
"""Kinds of entries, DW_RLE."""


def old_list(cursor: Cursor, base: int, shape: Shape, steps: Steps) -> Iterator[tuple[int, int]]:
    """Yield start and end of each range."""
    size = shape.address
    while any(pair := (cursor.uint(size), cursor.uint(size))):
        steps.take()
        if pair[0] == (1 << 8 * size) - 1:
            base = pair[1]
        else:
            yield base + pair[0], base + pair[1]


def range_list(
    cursor: Cursor, base: int, indexed: Callable[[int], int], shape: Shape, steps: Steps
) -> Iterator[tuple[int, int]]:
    """Yield start and end of each range; `indexed` returns an address by its index."""
    while (kind := cursor.uint(1)) != _END:
        steps.take()
        if kind == _BASEX:
            base = indexed(cursor.uleb())
        elif kind == _BASE:
            base = cursor.uint(shape.address)
        elif kind == _OFFSETS:
            yield base + cursor.uleb(), base + cursor.uleb()
        elif kind == _STARTX_ENDX:
            yield indexed(cursor.uleb()), indexed(cursor.uleb())
        elif kind == _STARTX_LENGTH:
            start = indexed(cursor.uleb())
            yield start, start + cursor.uleb()
        elif kind == _START_END:
            yield cursor.uint(shape.address), cursor.uint(shape.address)
        elif kind == _START_LENGTH:
            start = cursor.uint(shape.address)
            yield start, start + cursor.uleb()
        else:
            raise Damaged
