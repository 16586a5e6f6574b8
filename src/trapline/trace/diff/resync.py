"""Aligns sequences that have nothing once, as long loops of the same exceptions, from one difference to the next."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from .anchors import Keys

_FIRST: Final = 1 << 8
"""Keys that are compared at first."""
_SHIFTS: Final = tuple(
    sorted(((one, two) for one in range(9) for two in range(9) if one or two), key=lambda shift: (sum(shift), shift))
)
"""How many keys of each are passed over at a difference, the fewest first."""
ENOUGH: Final = 64
"""Equal keys after which no other shift is tried."""


def equal_start(a: Keys, b: Keys) -> int:
    """Return how many keys both begin with."""
    size = min(a.size, b.size)
    at, step = 0, _FIRST
    while at < size:
        differs = a[at : min(at + step, size)] != b[at : min(at + step, size)]
        if differs.any():
            return at + int(differs.argmax())
        at, step = at + step, step * 2
    return size


def resynchronised(a: Keys, b: Keys, steps: int, least: int) -> Iterator[tuple[int, int, int]]:
    """Yield where both are equal: the two indices and how many keys.

    It ends after `steps` differences, and at one after which fewer than `least` are equal, but at the end.
    """
    at = other = 0
    for _ in range(steps):
        same = equal_start(a[at:], b[other:])
        if same:
            yield at, other, same
        at, other = at + same, other + same
        if at == a.size or other == b.size:
            return
        shift = _shift(a[at : at + ENOUGH + 9], b[other : other + ENOUGH + 9], least)
        if shift is None:
            return
        at, other = at + shift[0], other + shift[1]


def _shift(a: Keys, b: Keys, least: int) -> tuple[int, int] | None:
    """Return the shift after which most keys are equal, of several the least; None: after none `least` are."""
    best, most = None, 0
    for one, two in _SHIFTS:
        size = min(a.size - one, b.size - two, ENOUGH)
        if size <= most:
            continue
        same = a[one : one + size] == b[two : two + size]
        equal = size if same.all() else int(np.argmin(same))
        if equal > most and equal >= min(least, size):
            best, most = (one, two), equal
            if equal == ENOUGH:
                break
    return best
