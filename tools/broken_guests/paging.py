"""The page tables of a broken guest: the first 2 MiB, mapped to itself and to the kernel's base; and a window."""

from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.arch.paging import PAGE, RW, US, P, table_index

from . import places

if TYPE_CHECKING:
    from .kernel import Kernel

BASES: Final = {
    "32-bit paging": (0, 0xC000_0000),
    "PAE paging": (0, 0xC000_0000),
    "long mode": (0, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_8000_0000),
}
_NAMES: Final = {4: "PML4E", 3: "PDPE", 2: "PDE", 1: "PTE"}


class Entry(NamedTuple):
    """An entry of a page table that leads to the window."""

    name: str
    level: int
    gpa: int
    size: int


class Window:
    """A page with page tables of its own below the root: faults change its entries, and the kernel lives on."""

    def __init__(self, kernel: "Kernel", *, user: bool) -> None:
        rng, first = kernel.rng, places.ROOT + 5 * PAGE
        if kernel.mode == "32-bit paging":
            self.gva = 0x8000_0000 | rng.randrange(0x1000) << 12
            root, index = places.ROOT, (self.gva >> 22, self.gva >> 12 & 1023)
            tables = [(2, root + 4 * index[0]), (1, first + 4 * index[1])]
            size = 4
        else:
            top = 4 if kernel.long else 3
            self.gva = 0x8000_0000 | rng.randrange(1 << 18) << 12
            if kernel.long:
                self.gva |= rng.randrange(1, 200) << 39
            chain = [places.ROOT, *(first + PAGE * number for number in range(top - 1))]
            tables = [
                (level, table + 8 * (self.gva >> 30 & 3 if level == top == 3 else table_index(self.gva, level)))
                for level, table in zip(range(top, 0, -1), chain, strict=True)
            ]
            size = 8
        self.entries = [Entry(_NAMES[level], level, gpa, size) for level, gpa in tables]
        self.values: dict[int, int] = {}
        for entry, below in zip(self.entries, [*self.entries[1:], None], strict=True):
            target = places.TARGET if below is None else below.gpa & -PAGE
            rights = P if entry.level == 3 and not kernel.long else P | RW | (US if user else 0)
            self.values[entry.gpa] = target | rights


def page_tables(kernel: "Kernel") -> dict[int, bytes]:
    """Return what the page tables have, by gpa: each entry."""
    narrow = kernel.mode == "32-bit paging"
    size, all_rights = 4 if narrow else 8, P | RW | US
    root, second, directory, table = (places.ROOT + PAGE * number for number in range(4))
    entries: dict[int, int] = {}
    bases = {0, kernel.base}
    for base in bases:
        if narrow:
            entries[root + 4 * (base >> 22)] = table | all_rights
        elif kernel.long:
            entries[root + 8 * table_index(base, 4)] = second | all_rights
            entries[second + 8 * table_index(base, 3)] = directory | all_rights
        else:
            entries[root + 8 * (base >> 30)] = directory | P
    if not narrow:
        entries[directory] = table | all_rights
    for gpa in range(0, 0x10_0000, PAGE):
        if gpa != places.GUARD:
            user = US if gpa in kernel.user_pages else 0
            entries[table + size * (gpa // PAGE)] = gpa | P | RW | user
    for window in kernel.windows:
        entries |= window.values
    return {gpa: value.to_bytes(size, "little") for gpa, value in entries.items()}
