"""Page tables: their bits, and the walk from a linear to a physical address (APM 5.1-5.4)."""

from collections.abc import Callable
from typing import Final, TypeAlias

from trapline.errors import TraplineError

from .registers import CR0, CR4, EFER

P: Final = 1 << 0
RW: Final = 1 << 1
US: Final = 1 << 2
PWT: Final = 1 << 3
PCD: Final = 1 << 4
A: Final = 1 << 5
D: Final = 1 << 6
PS: Final = 1 << 7
G: Final = 1 << 8
NX: Final = 1 << 63
ADDRESS: Final = 0x000F_FFFF_FFFF_F000
"""The physical address in a 64-bit entry."""

Reader: TypeAlias = Callable[[int, int], bytes]
"""`read(gpa, size)`: the bytes of guest-physical memory."""


class NotMapped(TraplineError):
    """A linear address has no physical one."""

    def __init__(self, gva: int, level: int, entry: int) -> None:
        """Keep the address, the level of the table whose entry says no, and that entry.

        Level 1 is the last table. Level 0: the address is not canonical, and no table was asked.
        """
        self.gva = gva
        self.level = level
        self.entry = entry
        why = f"the level {level} entry is {entry:#x}" if level else "it is not canonical"
        super().__init__(f"{gva:#x} is not mapped: {why}")


def walk(read: Reader, cr0: int, cr3: int, cr4: int, efer: int, gva: int) -> int:
    """Return the gpa behind a gva; presence is all that is asked, no right is checked."""
    if not cr0 & CR0.PG:
        return gva & 0xFFFF_FFFF
    # With paging on, LME alone means long mode; LMA is its echo, which a hand-made state may lack.
    if efer & (EFER.LMA | EFER.LME):
        return _walk_long(read, cr3 & ADDRESS, 5 if cr4 & CR4.LA57 else 4, gva)
    gva &= 0xFFFF_FFFF
    if cr4 & CR4.PAE:
        return _walk_pae(read, cr3 & 0xFFFF_FFE0, gva)
    return _walk_32(read, cr3 & 0xFFFF_F000, bool(cr4 & CR4.PSE), gva)


def _walk_long(read: Reader, table: int, levels: int, gva: int) -> int:
    width = 12 + 9 * levels
    high = gva >> (width - 1)
    if high not in (0, (1 << (65 - width)) - 1):
        raise NotMapped(gva, 0, 0)
    return _descend(read, table, levels, gva)


def _walk_pae(read: Reader, table: int, gva: int) -> int:
    entry = _entry(read, table + (gva >> 30) * 8, 8, 3, gva)
    return _descend(read, entry & ADDRESS, 2, gva)


def _descend(read: Reader, table: int, level: int, gva: int) -> int:
    """Walk tables of 512 entries from `level` down; levels 2 and 3 may end in a large page."""
    while True:
        shift = 3 + 9 * level
        entry = _entry(read, table + (gva >> shift & 0x1FF) * 8, 8, level, gva)
        if level == 1 or (level in (2, 3) and entry & PS):
            offset = (1 << shift) - 1
            return entry & ADDRESS & ~offset | gva & offset
        table = entry & ADDRESS
        level -= 1


def _walk_32(read: Reader, table: int, pse: bool, gva: int) -> int:
    entry = _entry(read, table + (gva >> 22) * 4, 4, 2, gva)
    if pse and entry & PS:
        # PSE-36: bits 20:13 of the entry are bits 39:32 of the address.
        return (entry >> 13 & 0xFF) << 32 | entry & 0xFFC0_0000 | gva & 0x003F_FFFF
    entry = _entry(read, (entry & 0xFFFF_F000) + (gva >> 12 & 0x3FF) * 4, 4, 1, gva)
    return entry & 0xFFFF_F000 | gva & 0xFFF


def _entry(read: Reader, gpa: int, size: int, level: int, gva: int) -> int:
    entry = int.from_bytes(read(gpa, size), "little")
    if not entry & P:
        raise NotMapped(gva, level, entry)
    return entry
