"""Nested page tables that hide the monitor from the guest and show it the BIOS as it was (APM 15.25).

Everything else is the identity, in pages of 1 GiB where possible: a two-dimensional walk costs a load per level.
"""

import struct
from typing import Final

from trapline.arch import paging

from .firmware import Firmware
from .shared import BASE, BIOS_PIECES, NESTED_AT, SIZE

ROOT: Final = BASE + NESTED_AT

_PAGE: Final = 0x1000
_LARGE: Final = 2 << 20
_HUGE: Final = 1 << 30
_FOUR_GIB: Final = 1 << 32
_PHYSICAL_END: Final = 1 << 40
_NOTHING: Final = _PHYSICAL_END - SIZE
"""Guest-physical addresses where there is no memory: what the guest finds in place of ours."""

_TABLE: Final = paging.P | paging.RW | paging.US
"""Walks of the guest's tables are user writes, so every level allows both (APM 15.25.5)."""
_LEAF: Final = _TABLE | paging.PS


def build(memory: memoryview, firmware: Firmware) -> None:
    """Write the tables, and the BIOS that they show, into the shared memory."""
    piece_size = BIOS_PIECES[1] - BIOS_PIECES[0] >> 1
    for number, start in enumerate(range(0, len(firmware.bios), piece_size)):
        piece = firmware.bios[start : start + piece_size]
        memory[BIOS_PIECES[number] : BIOS_PIECES[number] + len(piece)] = piece
    rom_at, bios_at = _FOUR_GIB - len(firmware.image), _FOUR_GIB - len(firmware.bios)

    def target(gpa: int) -> int:
        """Return where a page of the guest really is."""
        if BASE <= gpa < BASE + SIZE:
            return _NOTHING + gpa - BASE
        if bios_at <= gpa < _FOUR_GIB:
            number, offset = divmod(gpa - bios_at, piece_size)
            return BASE + BIOS_PIECES[number] + offset
        if rom_at <= gpa < bios_at:
            return _NOTHING + gpa % _HUGE % SIZE
        return gpa

    special = ((rom_at, _FOUR_GIB), (BASE, BASE + SIZE))
    tables = _Tables(memory)
    root = tables.new()
    for top in range(0, _PHYSICAL_END, _HUGE << 9):
        pdpt = tables.new()
        tables.set(root, top // (_HUGE << 9), pdpt | _TABLE)
        for huge in range(top, top + (_HUGE << 9), _HUGE):
            if not _touches(huge, _HUGE, special):
                tables.set(pdpt, huge // _HUGE % 512, huge | _LEAF)
                continue
            directory = tables.new()
            tables.set(pdpt, huge // _HUGE % 512, directory | _TABLE)
            for large in range(huge, huge + _HUGE, _LARGE):
                if not _touches(large, _LARGE, special):
                    tables.set(directory, large // _LARGE % 512, large | _LEAF)
                    continue
                table = tables.new()
                tables.set(directory, large // _LARGE % 512, table | _TABLE)
                for page in range(large, large + _LARGE, _PAGE):
                    tables.set(table, page // _PAGE % 512, target(page) | _TABLE)


def _touches(start: int, size: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(start < end and first < start + size for first, end in ranges)


class _Tables:
    """Pages of the shared memory handed out one after the other."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._next = NESTED_AT

    def new(self) -> int:
        """Return the physical address of an empty table."""
        self._memory[self._next : self._next + _PAGE] = bytes(_PAGE)
        self._next += _PAGE
        assert self._next <= NESTED_AT + (1 << 20), "the nested tables leave their mebibyte"
        return BASE + self._next - _PAGE

    def set(self, table: int, index: int, entry: int) -> None:
        """Write one entry."""
        struct.pack_into("<Q", self._memory, table - BASE + 8 * index, entry)
