"""Which entry of which page table denies an access, and which change of one entry would allow it."""

from typing import Final, NamedTuple

from trapline.arch.address_space import AddressSpace
from trapline.arch.delivery import Failed, checks
from trapline.arch.memory import PhysicalMemory
from trapline.arch.paging import (
    IMPLICIT,
    NX,
    PAGE,
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
    page_size,
)
from trapline.arch.registers import CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector

from .attempt import Attempt, Change

_NAMES: Final = {1: "PTE", 2: "PDE", 3: "PDPE", 4: "PML4E", 5: "PML5E"}
"""APM 5.2, 5.3."""
_BITS: Final = {Denied.SUPERVISOR_PAGE: (US, US), Denied.READ_ONLY: (RW, RW), Denied.NO_EXECUTE: (NX, 0)}
"""The bit of each entry on which a right depends, and its value that grants the right."""
_DENIED: Final = {
    Denied.SUPERVISOR_PAGE: "a supervisor page: {name} U/S=0",
    Denied.READ_ONLY: "not writable: {name} R/W=0",
    Denied.NO_EXECUTE: "not executable: {name} NX=1",
}
_GRANTED: Final = {
    Denied.SUPERVISOR_PAGE: "a user page",
    Denied.READ_ONLY: "writable",
    Denied.NO_EXECUTE: "executable",
}


class Entry(NamedTuple):
    """An entry of a page table that a walk read."""

    level: int
    """Of its table; 1 is the last."""
    gpa: int
    size: int
    """In bytes: 4 or 8."""
    value: int

    @property
    def name(self) -> str:
        """The entry's name, as PTE."""
        return _NAMES[self.level]


class _Reads:
    """Implements `PhysicalMemory`; notes the gpa, the size and the value of each read."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self.noted: list[tuple[int, int, int]] = []

    def u32(self, gpa: int) -> int:
        value = self._memory.u32(gpa)
        self.noted.append((gpa, 4, value))
        return value

    def u64(self, gpa: int) -> int:
        value = self._memory.u64(gpa)
        self.noted.append((gpa, 8, value))
        return value


class Denial(NamedTuple):
    """A page fault, and the entries that its walk read, from the root to the entry that is not present or the page."""

    fault: PageFault
    entries: tuple[Entry, ...]
    """Those that have rights."""
    walked: tuple[Entry, ...]
    """All of them."""

    @property
    def last(self) -> Entry:
        """The entry at which the walk ended."""
        return self.entries[-1]

    def wrong(self) -> list[Entry]:
        """Return the entries that take the missing right away."""
        bit, granted = _BITS[self.fault.denied]
        return [entry for entry in self.entries if (entry.value & bit) != granted]


def denial(attempt: Attempt, gva: int, access: int, ac: bool = False) -> Denial | None:
    """Return why page tables deny an access; None: they allow it. `ac` is RFLAGS.AC.

    Raises NotMapped for an address that is not canonical.
    """
    save, reads = attempt.save, _Reads(attempt.memory)
    space = AddressSpace(reads, save.cr0, save.cr3, save.cr4, save.efer, attempt.physical_bits)
    try:
        space.translate(gva & space.mask, access, ac)
    except PageFault as fault:
        top = fault.level + len(reads.noted) - 1
        entries = [Entry(top - number, *noted) for number, noted in enumerate(reads.noted)]
        walked = tuple(entries)
        if not space.long and top == 3 and len(entries) > 1:
            del entries[0]  # of the PDP table of PAE paging: it has no rights (APM 5.2.3)
        return Denial(fault, tuple(entries), walked)
    return None


def why(attempt: Attempt, gva: int, access: int, ac: bool = False) -> str | None:
    """Say what an address is, as the end of a sentence, if page tables deny an access; None: they allow it."""
    try:
        found = denial(attempt, gva, access, ac)
    except NotMapped:
        return "not a canonical address"
    if found is None:
        return None
    fault, last = found.fault, found.last
    if attempt.memory.qword(last.gpa & ~7) is None:
        return f"not mapped: {last.name} would be at {last.gpa:#x}, where there is no memory"
    if fault.denied is Denied.NOT_PRESENT:
        return f"not mapped: {last.name} is {last.value:#x}"
    if fault.denied is Denied.RESERVED_BITS:
        reserved = f"mapped with reserved bits: {last.name} {last.value:#x} has {fault.reserved:#x} set"
        return reserved + _reserved(attempt, last, fault.reserved)
    if fault.denied in _DENIED:
        return _DENIED[fault.denied].format(name=" and ".join(entry.name for entry in found.wrong()))
    if fault.denied is Denied.SMEP:
        return "a user page, which SMEP does not let the supervisor execute"
    return "a user page, which SMAP does not let the supervisor access"


def _reserved(attempt: Attempt, entry: Entry, bits: int) -> str:
    """Say which reserved bits of an entry are set, as the end of a sentence; empty where they have no name."""
    if bits & NX and not attempt.save.efer & EFER.NXE:
        return ", NX, while EFER.NXE is clear"  # APM 5.6.3
    if bits == PS and entry.level > 3:
        return f", PS, which no {entry.name} may have"  # APM 5.3
    if 1 < entry.level <= 3 and entry.value & PS and not bits & ~(page_size(entry.level) - 1):
        return f", and a page of {page_size(entry.level) >> 20} MiB must be aligned to its size"  # APM 5.4
    return ""


def walk(attempt: Attempt, gva: int, access: int, ac: bool = False) -> str | None:
    """Return the entries of a walk that denies an access, with their addresses; None: it allows it, or has none."""
    try:
        found = denial(attempt, gva, access, ac)
    except NotMapped:
        return None
    if found is None:
        return None
    entries = ", ".join(f"{entry.name} at {entry.gpa:#x} is {entry.value:#x}" for entry in found.walked)
    return f"{gva:#x}: CR3 {attempt.save.cr3:#x}, {entries}"


def walked(attempt: Attempt, gva: int) -> tuple[tuple[Entry, ...], int | PageFault | None]:
    """Return the entries that a read by the supervisor walks, and where it ends: at a gpa, or with a page fault.

    None: the address is not canonical. Without paging there are no entries.
    """
    save, reads = attempt.save, _Reads(attempt.memory)
    space = AddressSpace(reads, save.cr0, save.cr3, save.cr4, save.efer, attempt.physical_bits)
    end: int | PageFault | None
    try:
        end = space.translate(gva & space.mask, READ, True)
    except PageFault as fault:
        end = fault
    except NotMapped:
        end = None
    top = (5 if save.cr4 & CR4.LA57 else 4) if space.long else 3 if save.cr4 & CR4.PAE else 2
    return tuple(Entry(top - number, *noted) for number, noted in enumerate(reads.noted)), end


def tables(attempt: Attempt, gva: int) -> set[int]:
    """Return the gpas of the tables that a walk reads, as far as it comes."""
    return {entry.gpa & -PAGE for entry in walked(attempt, gva)[0]}


def mapped(attempt: Attempt, gva: int, access: int, ac: bool = False, *, empty: bool = True) -> Change | None:
    """Return the change of one entry that allows an access; None: there is none so simple.

    `empty`: an entry of zero may get any page, since nothing is read from it.
    """
    try:
        found = denial(attempt, gva, access, ac)
    except NotMapped:
        return None
    allowed = None if found is None else _allowing(attempt, found, access)
    if allowed is None or not (empty or allowed[0].value):
        return None
    entry, value, text = allowed
    return Change(f"{entry.name} {value:#x}, {text}", stores=((entry.gpa, value.to_bytes(entry.size, "little")),))


def failed_access(attempt: Attempt, failed: Failed) -> tuple[int, int, bool]:
    """Return the gva of a delivery's failed access, the kind of access, and RFLAGS.AC if it counts (APM 5.6)."""
    event, gva = failed.event, failed.details["gva"]
    code = 0 if event is None or event.vector != Vector.PF else event.error_code or 0
    if failed.check is checks.PUSH_PAGE:
        alignment_check = attempt.save.rflags & RFLAGS.AC and attempt.save.cpl < 3 and not code & USER
        return gva, code & (WRITE | USER), bool(alignment_check)
    return gva, code & WRITE | IMPLICIT, False


def why_failed(attempt: Attempt, failed: Failed) -> str:
    """Say what the address of a delivery's failed access is, as the end of a sentence."""
    return why(attempt, *failed_access(attempt, failed)) or "not accessible"


def repair_failed(attempt: Attempt, failed: Failed, *, empty: bool = False) -> Change | None:
    """Return the change of one entry that allows a delivery's failed access; see `mapped`."""
    return mapped(attempt, *failed_access(attempt, failed), empty=empty)


def _allowing(attempt: Attempt, found: Denial, access: int) -> tuple[Entry, int, str] | None:
    """Return the entry to change, its new value, and what it is then."""
    fault, last = found.fault, found.last
    if fault.denied is Denied.RESERVED_BITS:
        return last, last.value & ~fault.reserved, "without its reserved bits"
    if fault.denied is Denied.NOT_PRESENT:
        if last.value:
            return last, last.value | P, "present"
        if last.level > 3 or (last.level == 2 and last.size == 4 and not attempt.save.cr4 & CR4.PSE):
            return None  # it takes whole tables
        rights = P | RW | A | D | (US if access & USER else 0)
        return last, rights | (PS if last.level > 1 else 0), "present"
    if fault.denied in _BITS:
        wrong = found.wrong()
        bit, _ = _BITS[fault.denied]
        return (wrong[0], wrong[0].value ^ bit, _GRANTED[fault.denied]) if len(wrong) == 1 else None
    return last, last.value & ~US, "a supervisor page"
