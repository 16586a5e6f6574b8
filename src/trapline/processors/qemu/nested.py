"""Nested page tables that hide the monitor from the guest and show it the BIOS as it was (APM 15.25).

Everything else is the identity, in pages of 1 GiB where possible: two-dimensional walks cost a load a level.
"""

import struct
from collections.abc import Callable
from typing import Final

from trapline.arch import paging
from trapline.arch.encode import page_entry
from trapline.arch.paging import PAGE, page_size

from .firmware import Firmware
from .layout import BIOS_PAGES_AT, NESTED_AT, SIZE, SharedMemory

_HUGE: Final = page_size(3)
_FOUR_GIB: Final = 1 << 32

_TABLE: Final = paging.P | paging.RW | paging.US
"""Walks of the guest's tables are user writes, so every level allows both (APM 15.25.5)."""
_LEAF: Final = _TABLE | paging.PS


def build(shared: SharedMemory, firmware: Firmware) -> int:
    """Write the tables, and the BIOS that they show, into the shared memory; return the physical address of the root.

    What the guest finds in place of the monitor is the end of the address space, where there is no memory.
    """
    memory, base = shared.memory, shared.base
    end, nothing = 2 * base, shared.nothing
    rom_at, bios_at = _FOUR_GIB - len(firmware.image), _FOUR_GIB - len(firmware.bios)
    shown = dict[int, int]()
    for offset in _patched_pages(firmware):
        at = BIOS_PAGES_AT + len(shown) * PAGE
        memory[at : at + PAGE] = firmware.bios[offset : offset + PAGE]
        shown[bios_at + offset] = base + at

    def target(gpa: int) -> int:
        """Return where a page of the guest really is."""
        if base <= gpa < base + SIZE:
            return nothing + gpa - base
        if rom_at <= gpa < bios_at:
            return nothing + gpa % _HUGE % SIZE
        return shown.get(gpa, gpa)

    tables = _Tables(memory, base)
    root = tables.new()
    _fill(tables, root, 4, range(end), target, ((rom_at, _FOUR_GIB), (base, base + SIZE)))
    return root


def _fill(
    tables: "_Tables",
    table: int,
    level: int,
    gpas: range,
    target: Callable[[int], int],
    special: tuple[tuple[int, int], ...],
) -> None:
    """Map addresses by a table that begins with the first: in the largest pages, page by page where it is special."""
    size = page_size(level)
    for index, gpa in zip(range(512), gpas[::size], strict=False):
        if level == 1:
            tables.set(table, index, page_entry(target(gpa), _TABLE))
        elif size <= _HUGE and not _touches(gpa, size, special):
            tables.set(table, index, page_entry(gpa, _LEAF))
        else:
            below = tables.new()
            tables.set(table, index, page_entry(below, _TABLE))
            _fill(tables, below, level - 1, gpas[index * size :], target, special)


def _patched_pages(firmware: Firmware) -> list[int]:
    """Return the offsets of the pages of the firmware that differ in ours."""
    first_and_last = ((at // PAGE, (at + len(data) - 1) // PAGE) for at, data in firmware.patches)
    return sorted({page * PAGE for first, last in first_and_last for page in range(first, last + 1)})


def _touches(start: int, size: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(start < end and first < start + size for first, end in ranges)


class _Tables:
    """Pages of the shared memory handed out one after the other."""

    def __init__(self, memory: memoryview, base: int) -> None:
        self._memory = memory
        self._base = base
        self._next = NESTED_AT

    def new(self) -> int:
        """Return the physical address of an empty table."""
        self._memory[self._next : self._next + PAGE] = bytes(PAGE)
        self._next += PAGE
        assert self._next <= NESTED_AT + (1 << 20), "the nested tables leave their mebibyte"
        return self._base + self._next - PAGE

    def set(self, table: int, index: int, entry: int) -> None:
        """Write one entry."""
        struct.pack_into("<Q", self._memory, table - self._base + 8 * index, entry)
