"""What may be wrong with a program's state and tables. Nothing here makes a state that VMRUN refuses."""

import random
from collections.abc import Callable
from typing import Final, TypeAlias

from trapline.arch.registers import CR0, CR4, RFLAGS
from trapline.arch.vmcb import SaveArea

from . import places
from .operands import EXCLUDED
from .tables import Arena

Mutation: TypeAlias = Callable[[str, SaveArea, Arena, random.Random], None]

_ENTRY_BITS: Final = (0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8, 12, 13, 14, 40, 45, 51, 63)
"""Bits of a page table entry that lead nowhere but into the arena, or to a fault."""
_RAISED: Final = (0, 1, 3, 6, 7, 8, 10, 11, 12, 13, 13, 14, 14, 17, 0x80)


def _flip(arena: Arena, gpa: int, bit: int) -> None:
    arena.put(gpa + bit // 8, arena.get(gpa + bit // 8, 1) ^ 1 << bit % 8, 1)


def gate(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Change a bit of an exception's gate."""
    size = 4 if mode == "real" else 16 if mode in ("long", "compat") else 8
    places_of_bits = range(32) if mode == "real" else (*range(16, 48), *range(16, 48), *range(8 * size))
    _flip(arena, places.IDT + size * rng.choice(_RAISED), rng.choice(places_of_bits))


def descriptor(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Change a bit of a descriptor."""
    table = rng.choice((places.GDT, places.GDT, places.GDT, places.LDT))
    _flip(arena, table + 8 * rng.randrange(1, 19), rng.choice((*range(40, 56), *range(40, 56), *range(64))))


def stack_of_task(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Change a bit of a stack pointer or stack segment in the TSS."""
    _flip(arena, places.TSS + rng.randrange(2, 0x1C), rng.randrange(8))


def page(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Change a bit of the entry for a page, whatever the size of entries."""
    number = rng.choice(
        (places.CODE, places.STACKS, places.TOPS[0], places.IDT, places.GDT, places.TSS, places.HANDLERS)
    )
    number = (number >> 12) - rng.choice((0, 0, 1))
    wide = bool(save.cr4 & CR4.PAE)
    table = places.TABLES + places.PAGE * (1 if not wide else 3 if mode in ("long", "compat") else 2)
    bit = rng.choice(_ENTRY_BITS)
    if mode != "real":
        _flip(arena, table + (8 if wide else 4) * number, bit if wide else bit % 12)


def page_above(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Change a right in an entry of an upper level."""
    if mode != "real":
        levels = 3 if mode in ("long", "compat") else 2 if save.cr4 & CR4.PAE else 1
        _flip(arena, places.TABLES + places.PAGE * rng.randrange(levels), rng.choice((0, 1, 2, 5)))


def limits(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Shorten a table."""
    register = rng.choice((save.idtr, save.gdtr, save.ldtr, save.tr))
    register.limit = rng.randrange(0, register.limit + 1)


def control(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Change a bit of CR0 or CR4 that VMRUN leaves free."""
    if rng.random() < 0.5:
        save.cr0 ^= rng.choice((CR0.MP, CR0.EM, CR0.TS, CR0.NE, CR0.WP, CR0.AM, CR0.CD))
    else:
        bits = (CR4.VME, CR4.PVI, CR4.TSD, CR4.DE, CR4.PSE, CR4.MCE, CR4.PGE, CR4.PCE, CR4.OSFXSR, CR4.OSXMMEXCPT)
        save.cr4 ^= rng.choice((*bits, CR4.SMEP, CR4.SMAP, CR4.FSGSBASE, CR4.OSXSAVE))


def stack_pointer(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Put the stack near the edge of a page, or nowhere."""
    base = 0 if mode not in ("real", "v86", "pm16") else places.BASE
    edge = rng.choice((places.USER, places.ABSENT, places.STACKS, places.RESERVED, places.USER_READ, places.SUPERVISOR))
    save.rsp = edge - base + rng.randrange(-4, 24) & 0xFFFF_FFFF
    if mode == "long" and rng.random() < 0.3:
        save.rsp = rng.choice((0x8000_0000_0000, 0xFFFF_8000_0000_0000, 0x7FFF_FFFF_FFF8, 4)) + rng.choice((0, 8, -4))


def code_edge(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Start near the end of a page."""
    end = places.STACKS if mode in ("real", "v86", "pm16") else places.ABSENT  # within 64 KiB of 16-bit code
    start = end - rng.randrange(1, 16)
    arena.write(start, rng.randbytes(end - start).translate(_TAME))
    save.rip = start - save.cs.base


def flags(mode: str, save: SaveArea, arena: Arena, rng: random.Random) -> None:
    """Set a flag that changes what instructions do."""
    save.rflags |= rng.choice(
        (RFLAGS.TF, RFLAGS.AC, RFLAGS.NT, RFLAGS.IOPL, RFLAGS.RF, RFLAGS.IF, RFLAGS.VIF, RFLAGS.VIP)
    )


_TAME: Final = bytes(0x90 if byte in EXCLUDED or byte == 0x0F else byte for byte in range(256))

MUTATIONS: Final[tuple[Mutation, ...]] = (
    gate,
    gate,
    descriptor,
    descriptor,
    stack_of_task,
    page,
    page,
    page_above,
    limits,
    control,
    control,
    stack_pointer,
    stack_pointer,
    code_edge,
    flags,
)
