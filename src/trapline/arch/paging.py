"""Page tables: their bits, the kinds of access, and why one is denied (APM 5.1-5.8). `address_space` walks them."""

from enum import Enum
from typing import Final

from trapline.errors import FaultError

from .error_codes import PF_FETCH, PF_USER, PF_WRITE

PAGE: Final = 0x1000
"""Bytes of the smallest page (APM 5.3)."""
PAGE_SHIFT: Final = 12
PAGE_OFFSET: Final = PAGE - 1
"""The bits of an address that paging keeps."""


def page_size(level: int) -> int:
    """Return the bytes that an entry of a table of 64-bit entries maps: 4 KiB at level 1, 2 MiB, 1 GiB (APM 5.3)."""
    return PAGE << 9 * (level - 1)


def table_index(gva: int, level: int) -> int:
    """Return which of the 512 entries of a table is for an address (APM 5.3)."""
    return gva >> 9 * level + 3 & 511


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

READ: Final = 0
WRITE: Final = PF_WRITE
FETCH: Final = PF_FETCH
USER: Final = PF_USER
"""Kinds of access, as in a page fault's error code: one of the first three, and USER for an access at CPL 3."""
IMPLICIT: Final = 1 << 8
"""With an access: the processor reads a system table on its own, and RFLAGS.AC does not count (APM 5.6)."""

PHYSICAL_BITS: Final = 52
"""The most that the architecture allows."""


class NotMapped(FaultError):
    """A linear address has no physical one."""

    def __init__(self, gva: int, level: int, entry: int) -> None:
        """Keep the linear address, and the level and value of the entry that is not present.

        Level 1 is the last table. Level 0: the address is not canonical, and no table was read.
        """
        why = f"the level {level} page-table entry, {entry:#x}, is not present" if level else "it is not canonical"
        super().__init__(gva, why)
        self.level = level
        self.entry = entry


class Denied(Enum):
    """Why page tables deny an access (APM 5.6, 8.4.2)."""

    NOT_PRESENT = "the page is not present"
    RESERVED_BITS = "reserved bits are set"
    SUPERVISOR_PAGE = "the page is a supervisor page"
    READ_ONLY = "the page is read-only"
    NO_EXECUTE = "the page is not executable"
    SMEP = "SMEP denies the supervisor execution of a user page"
    SMAP = "SMAP denies the supervisor access to a user page"


class PageFault(FaultError):
    """An access that page tables do not allow (APM 5.6, 8.4.2)."""

    def __init__(self, gva: int, error_code: int, level: int, entry: int, denied: Denied, reserved: int = 0) -> None:
        """Keep what CR2 and the error code will be, why, and the level and value of the last entry that was read.

        `reserved` has the reserved bits that are set in it.
        """
        super().__init__(gva, "page tables deny the access")
        self.error_code = error_code
        self.level = level
        self.entry = entry
        self.denied = denied
        self.reserved = reserved

    def __str__(self) -> str:
        code, why = self.error_code, self.denied.value
        return f"#PF({code:#x}) at {self.address:#x}: {why}; the level {self.level} entry is {self.entry:#x}"
