"""What address-space randomisation does to the addresses of two runs, found from the addresses.

In the upper half of the address space, a kernel's, and in the lower half all addresses of one run may be a number of
pages above those of the other. Else, in the lower half, where each process is placed anew, the offset in a page is what
two runs have in common.
"""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Addresses: TypeAlias = NDArray[np.uint64]
_PAGE: Final = np.uint64(0xFFF)
_LOOKED_AT: Final = 1 << 20
"""Records of each trace that are looked at."""
_VOTES: Final = 512
"""Addresses of each trace, those with the most exceptions, that are compared each with each."""
_ALIKE: Final = 0.5
"""Which share of the addresses is equal without randomisation, or with one slide."""
_LEAST: Final = 3
"""Addresses that must be equal with a slide."""
_OFFSETS: Final = 8
"""Offsets in a page that must be equal."""
_ALIKE_OFFSETS: Final = 0.9
"""Which share of the offsets must be equal."""


class Randomised(NamedTuple):
    """How the addresses in a half of the address space are compared."""

    half: int
    """1: the upper one."""
    slide: int | None
    """What is taken from those of the second trace, modulo 2 to the 64th; None: offsets in a page are compared."""


def randomised(a: tuple[Addresses, NDArray[np.int8]], b: tuple[Addresses, NDArray[np.int8]]) -> tuple[Randomised, ...]:
    """Return how addresses are compared that cannot be as they are. Each trace: its addresses and their halves."""
    found = []
    for half in (0, 1):
        first, second = (_frequent(places[:_LOOKED_AT], halves[:_LOOKED_AT] == half) for places, halves in (a, b))
        if _share(first, second) >= _ALIKE:
            continue
        slide = _slide(first, second)
        if slide is not None:
            found.append(Randomised(half, slide))
        elif half == 0 and _same_offsets(first, second):
            found.append(Randomised(half, None))
    return tuple(found)


def _frequent(places: Addresses, chosen: NDArray[np.bool_]) -> Addresses:
    values, counts = np.unique(places[chosen], return_counts=True)
    return np.sort(values[np.argsort(-counts, kind="stable")[:_VOTES]])


def _share(a: Addresses, b: Addresses) -> float:
    """Return which share of the shorter one is in the other."""
    return np.intersect1d(a, b, assume_unique=True).size / max(min(a.size, b.size), 1)


def _same_offsets(a: Addresses, b: Addresses) -> bool:
    offsets = np.unique(a & _PAGE), np.unique(b & _PAGE)
    return min(offsets[0].size, offsets[1].size) >= _OFFSETS and _share(*offsets) >= _ALIKE_OFFSETS


def _slide(a: Addresses, b: Addresses) -> int | None:
    """Return the number of bytes, of whole pages, from most addresses of `a` to those of `b`."""
    differences = b[None, :] - a[:, None]
    pages = differences[differences & _PAGE == 0]
    values, counts = np.unique(pages, return_counts=True)
    if not values.size or counts.max() < max(_LEAST, _ALIKE * min(a.size, b.size)):
        return None
    return int(values[counts.argmax()])
