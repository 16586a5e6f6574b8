"""Page walks that denied an access (APM 5.2, 5.3, 5.6)."""

from typing import Final

from trapline.arch.error_codes import PF_FETCH, PF_USER, PF_WRITE
from trapline.arch.paging import NX, PS, RW, US, A, D, Denied, NotMapped, P, PageFault, table_index
from trapline.explain import pages
from trapline.explain.attempt import Attempt
from trapline.explain.pages import Entry as PageEntry
from trapline.explain.tables import Access

from .values import Field, Walk, WalkEntry

_FLAGS: Final = {"P": P, "R/W": RW, "U/S": US, "A": A, "D": D, "PS": PS, "NX": NX}
_WRONG: Final = {
    Denied.NOT_PRESENT: "P",
    Denied.SUPERVISOR_PAGE: "U/S",
    Denied.READ_ONLY: "R/W",
    Denied.NO_EXECUTE: "NX",
    Denied.SMEP: "U/S",
    Denied.SMAP: "U/S",
}
"""The bit that denies the access."""
_RIGHTS: Final = (Denied.SUPERVISOR_PAGE, Denied.READ_ONLY, Denied.NO_EXECUTE)


def page_walk(attempt: Attempt, access: Access) -> Walk | None:
    """Return the walk that denies an access; None: page tables allow it, or the address has none. See `pages.walk`."""
    try:
        found = pages.denial(attempt, *access)
    except NotMapped:
        return None
    if found is None:
        return None
    what = "fetch" if access.kind & PF_FETCH else "write" if access.kind & PF_WRITE else "read"
    whose = "user" if access.kind & PF_USER else "supervisor"
    wrong = {entry.gpa for entry in found.wrong()} if found.fault.denied in _RIGHTS else {found.last.gpa}
    fault = found.fault
    entries = tuple(walk_entry(entry, access.gva, fault if entry.gpa in wrong else None) for entry in found.walked)
    why = pages.why(attempt, *access) or ""
    return Walk(access.gva, f"{what}, {whose}", attempt.save.cr3, entries, why)


def walk_entry(entry: PageEntry, gva: int, fault: PageFault | None) -> WalkEntry:
    """Return an entry of the walk of `gva`; `fault`: what it led to, if this entry is to blame."""
    narrow = entry.size == 4
    index = gva >> (2 + 10 * entry.level) & 0x3FF if narrow else table_index(gva, entry.level)
    marked = None if fault is None else _WRONG.get(fault.denied)
    reserved = 0 if fault is None else fault.reserved
    flags = []
    for name, bit in _FLAGS.items():
        if (narrow and bit == NX) or (bit in (D, PS) and not entry.value & bit):
            continue
        is_wrong = name == marked or bool(reserved & bit)
        flags.append(Field(name, "1" if entry.value & bit else "0", is_wrong))
    return WalkEntry(entry.name, index, entry.gpa, entry.value, tuple(flags), fault is not None)
