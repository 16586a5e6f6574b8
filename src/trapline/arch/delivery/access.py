"""One delivery under way: memory as it is touched, by tables that the processor reads on its own and by pushes."""

import struct
from typing import Final, NamedTuple

from trapline.arch.address_space import AddressSpace
from trapline.arch.bits import M16, M32, M64
from trapline.arch.descriptors import ACCESSED, ACCESSED_BYTE, Attribute, SegmentState, Selector, attributes
from trapline.arch.events import Event, EventType, is_software
from trapline.arch.memory import PhysicalMemory
from trapline.arch.paging import IMPLICIT, PAGE, PAGE_OFFSET, PAGE_SHIFT, READ, USER, WRITE
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import FAULTS, Vector
from trapline.arch.vmcb import SaveArea

from . import checks
from .checks import Check
from .outcome import CheckFailed, Frame

_EXCEPTION: Final = EventType.EXCEPTION.value
"""A plain int: it is asked for at every event."""
_SOFT: Final = EventType.SOFT.value
_NOT_FAULTS: Final = 1 << Vector.DB | 1 << Vector.BP | 1 << Vector.OF | 1 << Vector.DF | 1 << Vector.MC
_SYSTEM: Final = READ | IMPLICIT
_QUADS: Final = {count: struct.Struct(f"<{count}Q").pack for count in (5, 6)}


class Place(NamedTuple):
    """A kind of memory, with the rows for a page fault there and for an address that is not canonical."""

    page: Check
    address: Check


IDT: Final = Place(checks.IDT_PAGE, checks.IDT_ADDRESS)
TABLE: Final = Place(checks.TABLE_PAGE, checks.TABLE_ADDRESS)
TSS: Final = Place(checks.TSS_PAGE, checks.TSS_ADDRESS)
STACK: Final = Place(checks.PUSH_PAGE, checks.PUSH_ADDRESS)


def pushed_flags(rflags: int, event: Event, sets_rf: bool, interrupts_keep_rf: bool) -> int:
    """Return the flags to push: a fault's have RF set, so that its instruction breakpoint is not hit again (APM 3.1.6).

    A #DB does not set it: its handler does (APM 13.1.4). What does not keep RF for interrupts goes by the vector alone.
    """
    if event.type == _EXCEPTION:
        return rflags | RFLAGS.RF if sets_rf and FAULTS >> event.vector & 1 else rflags
    if interrupts_keep_rf or event.type == _SOFT or _NOT_FAULTS >> event.vector & 1:
        return rflags
    return rflags | RFLAGS.RF


class Delivery:
    """The event, the state it meets, and the memory. Stores go to `writes`; the state stays as it is."""

    __slots__ = (
        "_base",
        "_page",
        "cpl",
        "event",
        "flags",
        "memory",
        "place",
        "return_rip",
        "rflags",
        "save",
        "software",
        "space",
        "writes",
    )

    def __init__(
        self,
        save: SaveArea,
        event: Event,
        memory: PhysicalMemory,
        next_rip: int | None,
        physical_bits: int,
        sets_rf: bool,
        interrupts_keep_rf: bool = True,
    ) -> None:
        self.save, self.event, self.memory = save, event, memory
        self.space = AddressSpace(memory, save.cr0, save.cr3, save.cr4, save.efer, physical_bits)
        self.writes = self.space.writes
        self._page = -1
        self.place = IDT
        self.cpl = save.cpl
        self.rflags = save.rflags
        self.flags = pushed_flags(self.rflags, event, sets_rf, interrupts_keep_rf)
        self.software = is_software(event)
        self.return_rip = save.rip if next_rip is None or not self.software else next_rip

    def read(self, gva: int, size: int, place: Place) -> int:
        """Return 1, 2, 4 or 8 bytes of a table, read as the system whatever CPL is (APM 5.6)."""
        gpa = self._find(gva & self.space.mask, size, place)
        if gpa is None:
            return self._across(gva, size)
        return self.memory.u64(gpa) if size == 8 else self.memory.u32(gpa) & (1 << 8 * size) - 1

    def read_pair(self, gva: int, place: Place) -> tuple[int, int]:
        """Return 16 bytes of a table as two integers."""
        gpa = self._find(gva & self.space.mask, 16, place)
        if gpa is None:
            return self.read(gva, 8, place), self.read(gva + 8, 8, place)
        u64 = self.memory.u64
        return u64(gpa), u64(gpa + 8)

    def _find(self, gva: int, size: int, place: Place) -> int | None:
        """Return the gpa of what is in one page; None: it is in two."""
        self.place = place
        offset = gva & PAGE_OFFSET
        if offset + size > PAGE:
            return None
        page = gva >> PAGE_SHIFT
        if page != self._page:
            self._base = self.space.translate(gva, _SYSTEM) - offset
            self._page = page
        return self._base + offset

    def _across(self, gva: int, size: int) -> int:
        """Return a value that is in two pages."""
        first = PAGE - (gva & PAGE_OFFSET)
        low = self._part(gva, first)
        return low | self._part(gva + first, size - first) << 8 * first

    def _part(self, gva: int, size: int) -> int:
        gpa = self.space.translate(gva & self.space.mask, _SYSTEM)
        return self.memory.u64(gpa) & (1 << 8 * size) - 1

    def descriptor(self, selector: int, limit_check: Check) -> tuple[int, int]:
        """Return the descriptor of a selector and its gva (APM 4.6)."""
        save = self.save
        table = save.ldtr if selector & Selector.TI else save.gdtr
        offset = selector & Selector.INDEX
        missing = selector & Selector.TI and not table.attributes & Attribute.P
        if missing or offset + 7 > table.limit:
            raise CheckFailed(limit_check, selector, limit=table.limit)
        gva = table.base + offset
        return self.read(gva, 8, TABLE), gva

    def mark_accessed(self, descriptor: int, gva: int) -> None:
        """Set the accessed bit of a descriptor that is loaded (APM 4.7.1)."""
        self.place = TABLE
        gpa = self.space.translate(gva + ACCESSED_BYTE & self.space.mask, WRITE | IMPLICIT)
        self.writes.append((gpa, bytes((attributes(descriptor | ACCESSED) & 0xFF,))))

    def push(self, values: tuple[int, ...], width: int, ss: SegmentState, sp: int, cpl: int) -> tuple[int, Frame]:
        """Push values of `width` bytes on a legacy stack; returns the stack pointer, and what was pushed.

        The stack pointer has 16 or 32 bits as SS.B says, and wraps (APM 4.7.3); each push is checked on its own.
        """
        self.place = STACK
        mask = M32 if ss.attributes & Attribute.DB else M16
        low, high = 0, ss.limit
        if ss.attributes & (Attribute.CODE | Attribute.EXPAND_DOWN) == Attribute.EXPAND_DOWN:
            low, high = ss.limit + 1, mask
        access, ac = self._push_access(cpl)
        base = ss.base
        for value in values:
            sp = sp - width & mask
            if sp < low or sp + width - 1 > high:
                raise CheckFailed(checks.PUSH_LIMIT, sp=sp, limit=ss.limit)
            self._store(base + sp & M32, value, width, access, ac)
        return sp, Frame(base + sp & M32, width, values)

    def push_quads(self, values: tuple[int, ...], rsp: int, cpl: int) -> Frame:
        """Push 64-bit values below `rsp`, which is aligned to 16 first (APM 8.9.3)."""
        self.place = STACK
        access, ac = self._push_access(cpl)
        top = (rsp & ~0xF) - 8 & M64
        bottom = top - 8 * len(values) + 8 & M64
        if top >> PAGE_SHIFT == bottom >> PAGE_SHIFT:
            gpa = self.space.translate(top, access, ac) - top + bottom
            self.writes.append((gpa, _QUADS[len(values)](*values[::-1])))
        else:
            for number, value in enumerate(values):
                gva = top - 8 * number & M64
                self.writes.append((self.space.translate(gva, access, ac), value.to_bytes(8, "little")))
        return Frame(bottom, 8, values)

    def _push_access(self, cpl: int) -> tuple[int, bool]:
        """Return the kind of access that a push by the new CPL is, and whether RFLAGS.AC counts.

        The user's RFLAGS.AC does not apply to the handler's stack.
        """
        if cpl == 3:
            return WRITE | USER, False
        return WRITE, bool(self.rflags & RFLAGS.AC) and self.cpl < 3

    def _store(self, gva: int, value: int, width: int, access: int, ac: bool) -> None:
        data = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        first = PAGE - (gva & PAGE_OFFSET)
        gpa = self.space.translate(gva, access, ac)
        if first >= width:
            self.writes.append((gpa, data))
        else:
            second = self.space.translate(gva + first & M32, access, ac)
            self.writes += (gpa, data[:first]), (second, data[first:])
