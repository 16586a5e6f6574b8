"""Where things lie in a bare machine's RAM: the image where it wants to be, everything else where room is left."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.arch.paging import PAGE
from trapline.errors import GuestImageError

from . import bios_data, states
from .bios_data import LOW_END

if TYPE_CHECKING:
    from collections.abc import Callable

    from trapline.arch.registers import Gprs
    from trapline.arch.vmcb import SaveArea

LOW_START: Final = 0x1000
"""Below lie the interrupt vectors of real mode and the BIOS data area."""
HIGH_START: Final = 0x10_0000
_HIGH_LIMIT: Final = 0xC000_0000
"""RAM that is told to guests ends here: devices of a PC begin above."""

_STACK: Final = 0x4000
_ZEROS: Final = bytes(1 << 20)


class Block(NamedTuple):
    """What goes with an image: addresses (gpa) in the block that was placed for it."""

    bits: int
    rsp: int
    gdt_base: int
    information: int
    tables: int

    def enter(self, entry: int, *, rax: int = 0, rbx: int = 0) -> Callable[[SaveArea, Gprs], None]:
        """Return what enters flat code at `entry`."""
        return partial(
            states.enter_flat,
            bits=self.bits,
            entry=entry,
            rsp=self.rsp,
            gdt_base=self.gdt_base,
            tables=self.tables,
            rax=rax,
            rbx=rbx,
        )


class Ram:
    """The RAM of a bare machine as it is filled; every fault is a GuestImageError."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.loads: list[tuple[int, bytes]] = []
        self._taken: list[tuple[int, int]] = []
        """Start and end of all that is loaded, in order and disjoint."""

    @property
    def regions(self) -> list[tuple[int, int, bool]]:
        """The map that guests are told: (gpa, size, whether it is free)."""
        regions = [(0, self.lower_size, True), (LOW_END, HIGH_START - LOW_END, False)]
        return [*regions, (HIGH_START, self.upper_size, True)] if self.upper_size else regions

    @property
    def lower_size(self) -> int:
        """The size of free RAM below 640 KiB."""
        return min(self.size, LOW_END)

    @property
    def upper_size(self) -> int:
        """The size of free RAM from 1 MiB on."""
        return max(0, min(self.size, _HIGH_LIMIT) - HIGH_START)

    def load(self, what: str, gpa: int, data: bytes, size: int | None = None) -> None:
        """Put bytes at an address, followed by zeros up to `size` bytes."""
        size = len(data) if size is None else size
        end = gpa + size
        if end > self.size:
            raise GuestImageError(f"{what} is at {gpa:#x} to {end:#x}, beyond the RAM, which ends at {self.size:#x}")
        if size == 0:
            return
        place = bisect_left(self._taken, (gpa, end))
        for start, taken_end in self._taken[max(place - 1, 0) : place + 1]:
            if gpa < taken_end and start < end:
                raise GuestImageError(
                    f"{what} at {gpa:#x} to {end:#x} overlaps what is loaded at {start:#x} to {taken_end:#x}"
                )
        self._taken.insert(place, (gpa, end))
        if data:
            self.loads.append((gpa, data))
        # One block of zeros serves for all, however large they are together.
        self.loads += [
            (start, _ZEROS[: min(len(_ZEROS), end - start)]) for start in range(gpa + len(data), end, len(_ZEROS))
        ]

    def check_entry(self, entry: int) -> None:
        """Refuse an entry where nothing was loaded."""
        if not any(start <= entry < end for start, end in self._taken):
            raise GuestImageError(f"the entry {entry:#x} is not in what is loaded")

    def load_above(self, what: str, data: bytes) -> tuple[int, int]:
        """Put bytes page-aligned above 1 MiB and all that is loaded; return where they start and end."""
        start = _page_up(max(HIGH_START, self._taken[-1][1] if self._taken else 0))
        self.load(what, start, data)
        return start, start + len(data)

    def block(self, bits: int, information: Callable[[int], bytes] = lambda gpa: b"") -> Block:
        """Load the block that goes with an image: stack, GDT, information built for its address, page tables."""
        tables_size = states.TABLES_SIZE if bits == 64 else 0
        middle = states.gdt(bits) + information(0)
        middle_size = _page_up(len(middle))
        size = _STACK + middle_size + tables_size
        start = self._low_gap(size)
        gdt_base = start + _STACK
        block = Block(bits, gdt_base, gdt_base, gdt_base + len(states.gdt(bits)), gdt_base + middle_size)
        self.load("the stack", start, b"", _STACK)
        self.load("the boot information", gdt_base, states.gdt(bits) + information(block.information))
        if tables_size:
            self.load("the page tables", block.tables, states.identity_tables(block.tables))
        self.load_bios_data()
        return block

    def load_bios_data(self) -> None:
        """Put there what a BIOS leaves in memory: vectors of real mode, the BIOS data area and the extended one.

        A guest that has something of its own at one of them keeps it.
        """
        for what, pieces in (
            ("the interrupt vectors", bios_data.vectors()),
            ("the BIOS data area", bios_data.data_areas()),
        ):
            if not any(gpa < end and start < gpa + len(data) for gpa, data in pieces for start, end in self._taken):
                for gpa, data in pieces:
                    self.load(what, gpa, data)

    def _low_gap(self, size: int) -> int:
        start = LOW_START
        for taken, end in self._taken:
            if taken >= start + size:
                break
            start = max(start, _page_up(end))
        if start + size > min(LOW_END, self.size):
            raise GuestImageError(f"the image leaves no room below {LOW_END:#x} for {size} bytes of boot information")
        return start


def _page_up(gpa: int) -> int:
    return -(-gpa // PAGE) * PAGE
