"""Causes in the page tables, and in the registers that say how they are read: CR3, CR4.PSE, CR4.PAE, EFER.

They are of an access that page tables deny: of the code at RIP, of the stack, or of a table that a delivery needs.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.arch.paging import (
    ADDRESS,
    FETCH,
    NX,
    PAGE,
    PCD,
    PS,
    PWT,
    RW,
    US,
    USER,
    A,
    NotMapped,
    P,
    PageFault,
    table_index,
)
from trapline.arch.registers import CR0, CR4, EFER

from . import pages
from .attempt import Attempt, Change, Finding

BASES: Final = (0, 0xC000_0000, 0x8000_0000, 0xFFFF_FFFF_8000_0000, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_C000_0000)
"""What kernels add to a physical address for a linear one: nothing, or the start of their half of the address space."""
TABLES: Final = {1: "page table", 2: "page directory", 3: "page-directory-pointer table", 4: "PML4", 5: "PML5"}
"""APM 5.2, 5.3."""
_SCRATCH: Final = 64
"""How many pages after CR3's, and before it, are tried for a new table."""


class Access(NamedTuple):
    """An access to linear memory, as `AddressSpace.translate` takes it."""

    gva: int
    kind: int
    ac: bool = False

    def allowed(self, attempt: Attempt) -> int | None:
        """Return the gpa if it is allowed and there is memory; else None."""
        try:
            gpa = attempt.space.translate(self.gva & attempt.space.mask, self.kind, self.ac)
        except (PageFault, NotMapped):
            return None
        return None if attempt.memory.qword(gpa & ~7) is None else gpa


def fetch(attempt: Attempt) -> Access:
    """Return the fetch of the instruction at RIP."""
    return Access(attempt.rip, FETCH | (USER if attempt.save.cpl == 3 else 0))


def findings(attempt: Attempt, access: Access) -> Iterator[Finding]:
    """Yield what may be wrong with the tables as a whole, the most specific first.

    A change proves its cause if the access is then allowed.
    """
    if not attempt.save.cr0 & CR0.PG:
        return
    yield from _no_nxe(attempt, access)
    yield from _no_pse(attempt, access)
    yield from _misaligned(attempt, access)
    yield from _virtual(attempt)
    yield from _mode(attempt, access)
    yield from _level(attempt, access)


def denial(attempt: Attempt, access: Access) -> pages.Denial | None:
    """Return why an access is denied; None: it is not, or its address is not canonical."""
    try:
        return pages.denial(attempt, *access)
    except NotMapped:
        return None


def _no_nxe(attempt: Attempt, access: Access) -> Iterator[Finding]:
    """NX is a reserved bit while EFER.NXE is clear (APM 5.6.3)."""
    found, efer = denial(attempt, access), attempt.save.efer
    if found is None or not found.fault.reserved & NX or efer & EFER.NXE:
        return
    last = found.last
    yield Finding(
        f"{last.name} {last.value:#x}, which maps {access.gva:#x}, has bit 63 (NX) set while EFER.NXE is clear: NX is "
        "then one of the reserved bits, and each access to the page is a page fault.",
        [Change("with EFER.NXE set", {"efer": efer | EFER.NXE})],
    )


def _no_pse(attempt: Attempt, access: Access) -> Iterator[Finding]:
    """Without CR4.PSE a PDE of 32 bits leads to a page table, whatever its PS bit (APM 5.2.2)."""
    save = attempt.save
    if attempt.long or save.cr4 & (CR4.PAE | CR4.PSE):
        return
    gpa = (save.cr3 & 0xFFFF_F000) + (access.gva >> 20 & 0xFFC)
    entry = attempt.memory.u32(gpa)
    if entry & (P | PS) != P | PS:
        return
    yield Finding(
        f"PDE {entry:#x} has PS set, a page of 4 MiB, but CR4.PSE is clear: the CPU takes {entry & -PAGE:#x} for a "
        f"page table, and {access.gva:#x} is {pages.why(attempt, *access) or 'elsewhere'}.",
        [Change("with CR4.PSE set", {"cr4": save.cr4 | CR4.PSE})],
    )


def _misaligned(attempt: Attempt, access: Access) -> Iterator[Finding]:
    """CR3 has no room for the low bits of the table's address (APM 5.2.1, 5.3.2)."""
    save = attempt.save
    pae = not attempt.long and save.cr4 & CR4.PAE
    size = 32 if pae else PAGE
    low = save.cr3 & (size - 1)
    if not low & ~(0 if pae else PWT | PCD) or save.cr4 & CR4.PCIDE:
        return
    root, top = save.cr3 - low, 5 if save.cr4 & CR4.LA57 else 4
    stores = _aligned(attempt, access.gva, top, low) if attempt.long else _aligned_root(attempt, access.gva, low)
    yield Finding(
        f"CR3 is {save.cr3:#x}, which is not aligned to {size} bytes: the CPU ignores its low bits and reads the "
        f"{TABLES[top if attempt.long else 3 if pae else 2]} at {root:#x}. There {access.gva:#x} is "
        f"{pages.why(attempt, *access) or 'elsewhere'}.",
        [Change(f"with the tables of {save.cr3:#x} at {root:#x}", stores=stores)],
    )


def _aligned(attempt: Attempt, gva: int, top: int, low: int) -> tuple[tuple[int, bytes], ...]:
    """Return stores of the entries of a walk to where the CPU reads them.

    The first table is `low` bytes off, and those that an entry with these bits leads to.
    """
    table, off, stores = attempt.save.cr3 - low, low, []
    for level in range(top, 0, -1):
        place = table + 8 * table_index(gva, level)
        entry = attempt.memory.u64(place + off)
        leads = level > 1 and not entry & PS
        off = low if leads and entry & low == low else 0
        stores.append((place, (entry & ~off).to_bytes(8, "little")))
        if not leads:
            break
        table = entry & ADDRESS
    return tuple(stores)


def _aligned_root(attempt: Attempt, gva: int, low: int) -> tuple[tuple[int, bytes], ...]:
    """Return the same outside long mode, where only the first table is off."""
    pae = attempt.save.cr4 & CR4.PAE
    size, place = (8, gva >> 30) if pae else (4, gva >> 22)
    entry = attempt.memory.read(attempt.save.cr3 + size * place, size)
    return ((attempt.save.cr3 - low + size * place, entry.to_bytes(size, "little")),)


def _virtual(attempt: Attempt) -> Iterator[Finding]:
    """CR3 takes a physical address (APM 5.2.1, 5.3.2)."""
    cr3 = attempt.save.cr3
    if attempt.memory.qword(cr3 & ADDRESS) is not None:
        return
    yield Finding(
        f"CR3 is {cr3:#x}, where there is no memory: it takes the physical address of a table, and this is a linear "
        "one.",
        [Change(f"with CR3 {cr3 - base & ADDRESS:#x}", {"cr3": cr3 - base}) for base in BASES if 0 < base <= cr3],
    )


def _plausible(attempt: Attempt, access: Access, change: Change) -> bool:
    """Return whether a change maps the access and RIP to where kernels map themselves."""
    after = attempt.changed(change)
    return all(
        (gpa := each.allowed(after)) is not None and each.gva - gpa in BASES for each in (access, fetch(attempt))
    )


def _mode(attempt: Attempt, access: Access) -> Iterator[Finding]:
    """Tables of another kind of paging than the registers say (APM 5.1, 14.6)."""
    save = attempt.save
    pae, long = save.cr4 | CR4.PAE, save.efer | EFER.LME | EFER.LMA
    rows = (
        Finding(
            f"CR4.PAE is clear, so that the CPU reads entries of 4 bytes, and the tables at CR3 {save.cr3:#x} have the "
            "8 bytes of PAE paging.",
            [Change("with CR4.PAE set", {"cr4": pae})],
        ),
        Finding(
            f"long mode was not enabled before paging: EFER.LME is clear, and the tables at CR3 {save.cr3:#x} have the "
            "four levels of long mode.",
            [Change("with EFER.LME set", {"cr4": pae, "efer": long})],
        ),
        Finding(
            f"CR4.PAE is set, so that the CPU reads entries of 8 bytes, and the tables at CR3 {save.cr3:#x} have the 4 "
            "bytes of 32-bit paging.",
            [Change("with CR4.PAE clear", {"cr4": save.cr4 & ~CR4.PAE})],
        ),
    )
    if not attempt.long:
        yield from (finding for finding in rows if all(_plausible(attempt, access, each) for each in finding.changes))


def _level(attempt: Attempt, access: Access) -> Iterator[Finding]:
    """A table of one level where the CPU reads one of the level above (APM 5.3)."""
    found = denial(attempt, access)
    if found is None or not attempt.long:
        return
    for number, entry in enumerate(found.walked):
        spare = scratch(attempt, found)
        if entry.level < 2 or spare is None:
            continue
        table = entry.gpa & -PAGE
        link = (spare + 8 * table_index(access.gva, entry.level), (table | P | RW | US | A).to_bytes(8, "little"))
        text = f"with a {TABLES[entry.level]} that leads to the table at {table:#x}"
        if number:
            above = found.walked[number - 1]
            parent = f"{above.name} {above.value:#x}"
            pointer = above.value & ~ADDRESS | spare
            change = Change(text, stores=(link, (above.gpa, pointer.to_bytes(8, "little"))))
        else:
            parent = f"CR3 {attempt.save.cr3:#x}"
            change = Change(text, {"cr3": spare}, (link,))
        yield Finding(
            f"{parent} leads to a {TABLES[entry.level - 1]}, where the CPU reads a {TABLES[entry.level]}: a level of "
            "the page tables is missing.",
            [change] if _plausible(attempt, access, change) else [],
        )


def scratch(attempt: Attempt, found: pages.Denial) -> int | None:
    """Return the gpa of a page for a new table: of memory that the walk does not read."""
    used = {entry.gpa & -PAGE for entry in found.walked}
    root = attempt.save.cr3 & ADDRESS
    candidates = (root + PAGE * number for number in (*range(_SCRATCH), *range(-1, -_SCRATCH, -1)))
    free = (gpa for gpa in candidates if gpa >= 0 and gpa not in used and attempt.memory.qword(gpa) is not None)
    return next(free, None)
