"""The values. A renderer decides how they look."""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeVar

from trapline.explain.memory import MissingMemory

_T = TypeVar("_T")


class State(Enum):
    """What an entry or a place is."""

    GOOD = "good"
    EMPTY = "empty"
    """All zero."""
    ABSENT = "not present"
    WRONG = "wrong"
    """Not what belongs there."""
    UNREADABLE = "unreadable"
    """Page tables deny the access, or the address is not canonical."""
    BEYOND = "beyond the limit"
    UNKNOWN = "not recorded"
    """The evidence does not include it."""


class Field(NamedTuple):
    """A field of an entry."""

    name: str
    value: str
    wrong: bool = False


class Entry(NamedTuple):
    """An entry of a table."""

    label: str
    """As "14", "0x8" or "RSP0"."""
    address: int
    """Linear."""
    text: str
    """What it is."""
    state: State
    fields: tuple[Field, ...] = ()
    """Of an entry that a delivery used."""
    used: tuple[str, ...] = ()
    """What used it, as "#DF" or "CS"."""
    wrong: str | None = None
    """What was wrong with it for the delivery that used it, as a clause."""


class Table(NamedTuple):
    """A table of the processor's, or a task-state segment."""

    name: str
    """IDT, GDT, LDT or TSS."""
    base: int
    """Linear."""
    limit: int
    entries: tuple[Entry, ...]


class WalkEntry(NamedTuple):
    """An entry of a page table that a walk read."""

    name: str
    """As PTE."""
    place: int
    """The number of the entry in its table."""
    gpa: int
    value: int
    flags: tuple[Field, ...]
    """P, R/W, U/S ... with 0 or 1."""
    wrong: bool
    """Whether it denied the access."""


class Walk(NamedTuple):
    """A page walk that denied an access."""

    address: int
    access: str
    """As "write, supervisor"."""
    cr3: int
    entries: tuple[WalkEntry, ...]
    denied: str
    """What the address is, as the end of a sentence."""


class StackRow(NamedTuple):
    """A value on a stack, or the place where one was to be pushed."""

    address: int
    """Linear."""
    value: int | None
    text: str
    """The name of what is pushed, or the symbol of the value."""
    pushed: bool
    """Whether it belongs to the frame of the delivery."""
    wrong: str | None = None
    """Why it cannot be written, as the end of a sentence."""


class Stack(NamedTuple):
    """The stack that a delivery pushes on."""

    name: str
    """As RSP0 or IST1, or RSP where the stack does not change."""
    event: str
    """What was delivered; empty: nothing was."""
    pointer: int
    """Linear."""
    width: int
    """Bytes of a value."""
    rows: tuple[StackRow, ...]
    """By address, the highest first."""
    failed: str | None
    """The check that failed, as a clause."""


class Pictures(NamedTuple):
    """All of an explanation."""

    tables: tuple[Table, ...]
    walks: tuple[Walk, ...]
    stacks: tuple[Stack, ...]


def recorded(read: Callable[[], _T | None]) -> _T | None:
    """Return what `read` returns, or None where the evidence does not include the memory that it takes."""
    try:
        return read()
    except MissingMemory:
        return None
