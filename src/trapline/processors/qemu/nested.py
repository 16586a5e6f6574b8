"""Nested page tables that hide the monitor from the guest and show it the BIOS as it was (APM 15.25).

Everything else is the identity, in pages of 1 GiB where possible: two-dimensional walks cost a load a level.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from trapline.arch import paging
from trapline.arch.encode import page_entry
from trapline.arch.paging import PAGE, page_size
from trapline.devices import lapic

from .firmware import Firmware
from .layout import BIOS_PAGES_AT, NESTED_AT, SharedMemory

_HUGE: Final = page_size(3)
_FOUR_GIB: Final = 1 << 32

_TABLE: Final = paging.P | paging.RW | paging.US
"""Walks of the guest's tables are user writes, so every level allows both (APM 15.25.5)."""
_LEAF: Final = _TABLE | paging.PS


def build(shared: SharedMemory, firmware: Firmware, *, guards_apic: bool = False) -> int:
    """Write the tables, and the BIOS that they show, into the shared memory; return the physical address of the root.

    What the guest finds in place of the monitor is the end of the address space, where there is no memory.
    `guards_apic`: writes to the local APIC fault.
    """
    memory, base, size = shared.memory, shared.base, shared.size
    end, nothing = 2 * base, shared.nothing
    rom_at, bios_at = _FOUR_GIB - len(firmware.image), _FOUR_GIB - len(firmware.bios)
    shown = dict[int, int]()
    for offset in _patched_pages(firmware):
        at = BIOS_PAGES_AT + len(shown) * PAGE
        memory[at : at + PAGE] = firmware.bios[offset : offset + PAGE]
        shown[bios_at + offset] = base + at

    def target(gpa: int) -> int:
        """Return where a page of the guest really is."""
        if base <= gpa < base + size:
            return nothing + gpa - base
        if rom_at <= gpa < bios_at:
            return nothing + gpa % _HUGE % size
        return shown.get(gpa, gpa)

    tables = _Tables(memory, base)
    root = tables.new()
    special = [(rom_at, _FOUR_GIB), (base, base + size)]
    read_only = lapic.BASE if guards_apic else -1
    if guards_apic:
        special.append((lapic.BASE, lapic.BASE + PAGE))

    def entry(gpa: int) -> int:
        return page_entry(target(gpa), _TABLE & ~paging.RW if gpa == read_only else _TABLE)

    _fill(tables, root, 4, range(end), entry, special)
    return root


def _fill(
    tables: "_Tables",
    table: int,
    level: int,
    gpas: range,
    entry: Callable[[int], int],
    special: Sequence[tuple[int, int]],
) -> None:
    """Map addresses by a table that begins with the first: in the largest pages, page by page where it is special."""
    size = page_size(level)
    for index, gpa in zip(range(512), gpas[::size], strict=False):
        if level == 1:
            tables.set(table, index, entry(gpa))
        elif size <= _HUGE and not _touches(gpa, size, special):
            tables.set(table, index, page_entry(gpa, _LEAF))
        else:
            below = tables.new()
            tables.set(table, index, page_entry(below, _TABLE))
            _fill(tables, below, level - 1, gpas[index * size :], entry, special)


def _patched_pages(firmware: Firmware) -> list[int]:
    """Return the offsets of the pages of the firmware that differ in ours."""
    first_and_last = ((at // PAGE, (at + len(data) - 1) // PAGE) for at, data in firmware.patches)
    return sorted({page * PAGE for first, last in first_and_last for page in range(first, last + 1)})


def _touches(start: int, size: int, ranges: Sequence[tuple[int, int]]) -> bool:
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
