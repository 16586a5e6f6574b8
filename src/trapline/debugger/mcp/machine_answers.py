"""The typed answers of the tools over held machines."""

from .answers import Answer, NextStep, Part, Place, Raised, Why


class StopAnswer(Answer):
    """A machine that is stopped and held, or that has ended."""

    machine: str
    """Its number for the other tools, and for `exceptions` and `explain`."""
    held: bool
    """Whether it can be looked at. If not, it has ended, and its trace is left."""
    reason: str
    """`exception` (not delivered yet), `shutdown` (the state from before the reset), `breakpoint`, `step`, ..."""
    text: str
    exception: Raised | None = None
    why: Why | None = None
    where: Place | None = None
    executed: list[str] | None = None
    """The instructions that were stepped, oldest first."""
    console: str
    """What the guest wrote since the last stop: the end of it."""
    catches: list[str]
    """What the machine stops at."""
    note: str | None = None
    next: list[NextStep]


class RegistersAnswer(Answer):
    """The registers of a stopped CPU."""

    machine: str
    mode: str
    """Operating mode and paging."""
    registers: dict[str, str]


class MemoryAnswer(Answer):
    """Memory of a stopped guest."""

    machine: str
    address: str
    space: str
    """`linear`: through the guest's page tables; or `physical`."""
    size: int
    """Bytes that are shown."""
    place: str | None = None
    """The symbol of the address."""
    lines: list[str]
    """16 bytes each: address, hexadecimal, text."""
    next_address: str | None = None
    """Where the rest begins; missing: this is all."""
    note: str | None = None


class CodeAnswer(Answer):
    """Instructions of a stopped guest."""

    machine: str
    bits: int
    place: str | None = None
    lines: list[str]
    """`>` marks the one at CS:RIP."""
    next_address: str | None = None


class TableEntry(Part):
    """An entry of a table."""

    label: str
    """The vector, the selector, or as RSP0."""
    address: str
    text: str
    state: str
    """`good`, `not present`, `wrong`, `unreadable`, `beyond the limit`."""
    fields: str | None = None
    """As `P=1 DPL=0 type=0xe`."""


class TableShown(Part):
    """A table of the CPU."""

    name: str
    base: str
    limit: str
    entries: list[TableEntry]
    empty: int
    """Entries that are all zero, which are left out."""


class TablesAnswer(Answer):
    """Tables of a stopped CPU, decoded."""

    machine: str
    tables: list[TableShown]
    missing: list[str]
    """Tables that are not loaded, and why they cannot be shown."""
    next_cursor: str | None = None
    """For the next entries of a table that was asked for by name; missing: these are all."""


class WalkStep(Part):
    """An entry of a page table."""

    name: str
    """As PTE."""
    place: int
    """Its number in the table."""
    physical: str
    """Where it is."""
    value: str
    flags: str
    """As `P=1 R/W=1 U/S=0`."""
    denies: bool
    """Whether it denied the access."""


class WalkAnswer(Answer):
    """How a linear address becomes a physical one."""

    machine: str
    address: str
    symbol: str | None = None
    cr3: str
    steps: list[WalkStep]
    """The entries that the CPU reads, from the root on; none without paging."""
    physical: str | None = None
    """The physical address; missing: there is none."""
    rights: list[str]
    """What the entries permit together: some of `read`, `write`, `execute`, `user`."""
    denied: str | None = None
    """Why it has none."""
