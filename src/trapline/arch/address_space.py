"""The walk from a linear to a physical address, and the rights it finds (APM 5.1-5.8)."""

from functools import cache
from typing import Final

from .bits import M32, M64
from .error_codes import PF_PRESENT, PF_RESERVED
from .memory import PhysicalMemory, Reader, ReaderMemory
from .paging import (
    ADDRESS,
    FETCH,
    IMPLICIT,
    NX,
    PS,
    READ,
    RW,
    US,
    USER,
    WRITE,
    A,
    D,
    Denied,
    NotMapped,
    P,
    PageFault,
)
from .registers import CR0, CR4, EFER

_LONG: Final = EFER.LMA | EFER.LME
_UNCOMMON: Final = USER | FETCH
_NO_TABLES: Final = 0
_NARROW: Final = 2
_PAE: Final = 3
_PAT_LARGE: Final = 1 << 12
"""In the entry of a large page a bit that is not part of the address (APM 5.4)."""
_RIGHTS: Final = RW | US | P
"""What every entry of a walk must grant. P, which each has, means the right to execute, which NX takes away."""
_SUPERVISOR: Final = RW | P
"""The rights of a page that the supervisor may use in any way but to execute it."""


@cache
def _plan(levels: int, reserved: int) -> tuple[tuple[int, int, int], ...]:
    """Return a row for each 64-bit table but the last: shift to the index, bits to test, level.

    An entry in which P and A are all that is set of those bits leads to the next table and needs nothing done.
    """
    return tuple((9 * level, P | A | PS | NX | reserved, level) for level in range(levels, 1, -1))


def walk(read: Reader, cr0: int, cr3: int, cr4: int, efer: int, gva: int) -> int:
    """Return the gpa of a gva; presence is checked, but neither rights nor reserved bits.

    Raises NotMapped, and what `read` raises where a table is.
    """
    # Without SMAP the supervisor may read whatever is present.
    space = AddressSpace(ReaderMemory(read), cr0, cr3, cr4 & ~CR4.SMAP, efer)
    try:
        return space.translate(gva if space.long else gva & 0xFFFF_FFFF, READ)
    except PageFault as fault:
        raise NotMapped(gva & space.mask, fault.level, fault.entry) from None


class AddressSpace:
    """The linear addresses that CR0, CR3, CR4 and EFER give, as long as the tables stay the same.

    `writes` collects the accessed and dirty bits that walks set, as (gpa, bytes).
    """

    __slots__ = (
        "_cr0",
        "_cr4",
        "_efer",
        "_last",
        "_levels",
        "_marked",
        "_near",
        "_near_rights",
        "_near_table",
        "_plan",
        "_reserved",
        "_root",
        "_strict",
        "long",
        "mask",
        "memory",
        "writes",
    )

    def __init__(
        self, memory: PhysicalMemory, cr0: int, cr3: int, cr4: int, efer: int, physical_bits: int | None = None
    ) -> None:
        """Without `physical_bits` no bit counts as reserved."""
        self.memory = memory
        self._cr0, self._cr4, self._efer = cr0, cr4, efer
        self.writes: list[tuple[int, bytes]] = []
        self._marked: dict[int, int] | None = None
        # The last 2 MiB that were walked to in small pages: tables and stacks are often neighbours.
        self._near, self._near_table, self._near_rights = -1, 0, 0
        self.long, self.mask = False, M32
        # With paging on, LME alone means long mode; LMA is its echo, which a hand-made state may lack.
        if not cr0 & CR0.PG:
            self._levels = _NO_TABLES
        elif efer & _LONG:
            self.long, self.mask = True, M64
            self._levels, self._root = 5 if cr4 & CR4.LA57 else 4, cr3 & ADDRESS
        elif cr4 & CR4.PAE:
            self._levels, self._root = _PAE, cr3 & 0xFFFF_FFE0
        else:
            self._levels, self._root = _NARROW, cr3 & 0xFFFF_F000
        self._strict = physical_bits is not None
        self._reserved = 0
        if physical_bits is not None:
            self._reserved = ADDRESS & -1 << physical_bits | (0 if efer & EFER.NXE else NX)
        self._last = P | A | self._reserved
        self._plan = _plan(2 if self._levels == _PAE else self._levels, self._reserved)

    def is_canonical(self, gva: int) -> bool:
        """Return whether the high bits of an address are alike (APM 5.3.1); outside long mode it is always so."""
        if not self.long:
            return True
        return gva >> 47 in (0, 0x1_FFFF) if self._levels == 4 else gva >> 56 in (0, 0xFF)

    def translate(self, gva: int, access: int, ac: bool = False, /) -> int:
        """Return the gpa for an access that stays in its page, and note the accessed and dirty bits it sets.

        `ac` is RFLAGS.AC. Raises PageFault, or NotMapped for an address that is not canonical.
        """
        levels = self._levels
        if levels == _NO_TABLES:
            return gva & 0xFFFF_FFFF
        if levels == _NARROW:
            return self._allow(gva, access, ac, *self._walk_narrow(gva, access))
        high = gva >> 47
        if high and high != 0x1_FFFF and not self.is_canonical(gva):
            raise NotMapped(gva, 0, 0)
        u64 = self.memory.u64
        if gva >> 21 == self._near:
            table, rights = self._near_table, self._near_rights
        else:
            table = self._pdpt_entry(gva, access) & ADDRESS if levels == _PAE else self._root
            rights = _RIGHTS
            for shift, tested, level in self._plan:
                at = table + (gva >> shift & 0xFF8)
                entry = u64(at)
                rights &= entry
                if entry & tested != P | A:
                    if self._is_large(gva, access, at, entry, level):
                        offset = (8 << shift) - 1
                        gpa = entry & ADDRESS & ~offset | gva & offset
                        return self._allow(gva, access, ac, gpa, _take_nx(rights, entry), level, at, entry)
                    rights = _take_nx(rights, entry)
                table = entry & ADDRESS
            self._near, self._near_table, self._near_rights = gva >> 21, table, rights
        at = table + (gva >> 9 & 0xFF8)
        entry = u64(at)
        rights &= entry
        gpa = entry & ADDRESS | gva & 0xFFF
        if (
            entry & self._last == P | A
            and rights == _SUPERVISOR
            and access & _UNCOMMON == 0
            and (entry & D or not access & WRITE)
        ):
            return gpa
        self._check(gva, access, entry, 1, self._reserved)
        return self._allow(gva, access, ac, gpa, _take_nx(rights, entry), 1, at, entry)

    def _is_large(self, gva: int, access: int, at: int, entry: int, level: int) -> bool:
        """Return whether an entry above the last table maps a page; one that leads on gets its accessed bit."""
        reserved = self._reserved
        if self._strict and entry & PS:
            reserved |= PS if level > 3 else (8 << 9 * level) - 1 & ADDRESS & ~_PAT_LARGE
        self._check(gva, access, entry, level, reserved)
        if entry & PS and level <= 3:
            return True
        if not entry & A:
            self._mark(at, entry, A)
        return False

    def _pdpt_entry(self, gva: int, access: int) -> int:
        """Return the first entry of a PAE walk: it has no rights, and no accessed bit (APM 5.2.3)."""
        entry = self.memory.u64(self._root + (gva >> 30) * 8)
        # That 2:1 and 8:5 are zero is checked when CR3 is loaded.
        self._check(gva, access, entry, 3, -1 << 52 & NX * 2 - 1 | self._reserved if self._strict else 0)
        return entry

    def _walk_narrow(self, gva: int, access: int) -> tuple[int, int, int, int, int]:
        """Walk two tables of 32-bit entries (APM 5.2.2); returns gpa, rights; level, place, value of the last."""
        u32 = self.memory.u32
        at = self._root + (gva >> 20 & 0xFFC)
        entry = u32(at)
        self._check(gva, access, entry, 2, 0)
        if entry & PS and self._cr4 & CR4.PSE:
            self._check(gva, access, entry, 2, 1 << 21 if self._strict else 0)
            # Bits 20:13 of the entry are bits 39:32 of the address.
            gpa = (entry >> 13 & 0xFF) << 32 | entry & 0xFFC0_0000 | gva & 0x003F_FFFF
            return gpa, entry & _RIGHTS, 2, at, entry
        if not entry & A:
            self._mark(at, entry, A)
        rights = entry & _RIGHTS
        at = (entry & 0xFFFF_F000) + (gva >> 10 & 0xFFC)
        entry = u32(at)
        self._check(gva, access, entry, 1, 0)
        return entry & 0xFFFF_F000 | gva & 0xFFF, rights & entry, 1, at, entry

    def _check(self, gva: int, access: int, entry: int, level: int, reserved: int) -> None:
        """Raise PageFault for an entry that is not present or has reserved bits set."""
        if not entry & P:
            raise PageFault(gva, self._kind(access), level, entry, Denied.NOT_PRESENT)
        if entry & reserved:
            code = PF_PRESENT | PF_RESERVED | self._kind(access)
            raise PageFault(gva, code, level, entry, Denied.RESERVED_BITS, entry & reserved)

    def _allow(self, gva: int, access: int, ac: bool, gpa: int, rights: int, level: int, at: int, entry: int) -> int:
        """Return the gpa if the rights suffice, and mark the last entry; raises PageFault."""
        denied = self._denied(rights, access, ac)
        if denied is not None:
            raise PageFault(gva, PF_PRESENT | self._kind(access), level, entry, denied)
        needed = A | D if access & WRITE else A
        if entry & needed != needed:
            self._mark(at, entry, needed)
        return gpa

    def _denied(self, rights: int, access: int, ac: bool) -> Denied | None:
        """Return why an access is denied (APM 5.6.1-5.6.6)."""
        if access & USER:
            if not rights & US:
                return Denied.SUPERVISOR_PAGE
        elif rights & US:
            if access & FETCH:
                if self._cr4 & CR4.SMEP:
                    return Denied.SMEP
            elif self._cr4 & CR4.SMAP and (access & IMPLICIT or not ac):
                return Denied.SMAP
        if access & WRITE and not rights & RW and (access & USER or self._cr0 & CR0.WP):
            return Denied.READ_ONLY
        if access & FETCH and not rights & P:
            return Denied.NO_EXECUTE
        return None

    def _kind(self, access: int) -> int:
        """Return the kind of access, as in an error code (APM 8.4.2)."""
        known = WRITE | USER
        if (self._efer & EFER.NXE and self._levels != _NARROW) or self._cr4 & CR4.SMEP:
            known |= FETCH
        return access & known

    def _mark(self, at: int, entry: int, bits: int) -> None:
        """Set bits of an entry; all of them are in its low 32 bits."""
        if self._marked is None:
            self._marked = {}
        before = self._marked.get(at, entry & 0xFFFF_FFFF)
        if before & bits != bits:
            self._marked[at] = before | bits
            self.writes.append((at, (before | bits).to_bytes(4, "little")))


def _take_nx(rights: int, entry: int) -> int:
    return rights & ~P if entry & NX else rights
