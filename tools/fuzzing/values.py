"""Values that lead somewhere: addresses, selectors, flags."""

import random
from typing import Final

from . import places, tables

EDGES: Final = (0, 1, 2, 3, 4, 7, 8, 15, 0x80, 0xFE8, 0xFF0, 0xFF8, 0xFFC, 0xFFE, 0xFFF)
_PAGES: Final = (
    places.USER,
    places.USER,
    places.USER,
    places.USER_READ,
    places.SUPERVISOR,
    places.SUPERVISOR,
    places.SUPERVISOR_READ,
    places.NO_EXECUTE,
    places.ABSENT,
    places.RESERVED,
    places.CODE,
    places.STACKS,
)


def address(rng: random.Random, mode: str) -> int:
    """Return an address that may or may not be there."""
    if mode in ("real", "v86"):
        return rng.choice(EDGES) | rng.randrange(16) << 12
    at = rng.choice(_PAGES) + rng.choice((*EDGES, rng.randrange(0x1000)))
    if mode == "pm16":
        return at & 0xFFFF
    if mode == "long":
        roll = rng.random()
        if roll < 0.15:
            return places.ALIAS + at
        if roll < 0.25:
            return rng.choice((0x8000_0000_0000, 0xFFFF_7FFF_FFFF_FFF8, 0x1234_5678_9ABC_DEF0, (1 << 64) - 4, 1 << 40))
    if rng.random() < 0.08:
        return rng.choice((0xFFFF_FFFC, 0x8000_0000, 0x4000_0000, 0xFFFF_F000))
    return at


def selector(rng: random.Random, mode: str, cpl: int) -> int:
    """Return a selector, mostly one of the tables."""
    if mode in ("real", "v86"):
        return rng.choice((0x1000, 0x1800, 0x2000, 0x2100, 0x2200, 0x1FFF, 0x1500))
    roll = rng.random()
    if roll < 0.1:
        return rng.getrandbits(16)
    if roll < 0.2:
        return rng.choice((0, 1, 2, 3, 0xFFFC, 0x100))
    if roll < 0.4:
        return (tables.DATA_0 + 2 * cpl) << 3 | cpl
    return rng.randrange(1, 30) << 3 | rng.choice((0, 0, 0, 4)) | rng.choice((0, cpl, 3, rng.randrange(4)))


def value(rng: random.Random, mode: str, cpl: int) -> int:
    """Return what a general register may start with."""
    roll = rng.random()
    if roll < 0.5:
        return address(rng, mode)
    if roll < 0.6:
        return selector(rng, mode, cpl)
    if roll < 0.8:
        return rng.choice((0, 0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000, 1 << 63))
    return rng.getrandbits(rng.choice((8, 16, 32, 64)))


def flags(rng: random.Random) -> int:
    """Return RFLAGS to start with: mostly tame."""
    roll = rng.random()
    if roll < 0.6:
        return 0x2
    if roll < 0.8:
        return 0x2 | rng.choice((0x100, 0x200, 0x4_0000, 0x4000, 0x1_0000, 0x3000, 0x400, 0x20_0000))
    return 0x2 | rng.getrandbits(22) & 0x27_7FD5
