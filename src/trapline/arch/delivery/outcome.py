"""What a delivery ends with."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from trapline.arch.descriptors import SegmentState
from trapline.arch.events import Event
from trapline.arch.paging import Denied

from .checks import Check

Write: TypeAlias = tuple[int, bytes]
"""A gpa and the bytes that the processor stores there."""


class Frame(NamedTuple):
    """What was pushed."""

    gva: int
    """The linear address of the last value: what the new stack pointer points at."""
    width: int
    """Bytes of each value."""
    values: tuple[int, ...]
    """In the order of the pushes."""


class Delivered(NamedTuple):
    """The handler is about to start: the registers that changed, and what was stored."""

    rip: int
    rsp: int
    rflags: int
    cpl: int
    cs: SegmentState
    ss: SegmentState | None
    """None: as it was."""
    nulled: bool
    """DS, ES, FS and GS are null: virtual-8086 mode was left."""
    writes: list[Write]
    """The frame, accessed and dirty bits of page tables, accessed bits of descriptors, in order."""
    frame: Frame
    own_stack: bool = False
    """The frame is on the stack of the privilege level or of the IST, wherever RSP was."""


class Failed(NamedTuple):
    """A check failed, and an exception follows."""

    check: Check
    event: Event | None
    """What is raised, before it is combined with what was being delivered; None: the model goes no further."""
    address: int | None
    """The linear address that a page fault writes to CR2."""
    details: Mapping[str, int]
    """The values that the check used: vector, gate, selector, descriptor, limit, gva, level, entry ..."""
    denied: Denied | None
    """Why page tables deny the access, if that is what failed."""
    writes: list[Write]
    """What was stored before the failure."""

    def __str__(self) -> str:
        why = f"; {self.denied.value}" if self.denied is not None else ""
        values = ", ".join(f"{name} {value:#x}" for name, value in self.details.items())
        follows = f"{self.event} follows" if self.event else "not modelled"
        return f"{self.check.name}: {self.check.text} ({values}{why}); {follows} [APM {self.check.section}]"


class CheckFailed(Exception):
    """Ends a delivery; never leaves this room."""

    def __init__(self, check: Check, selector: int = 0, **details: int) -> None:
        """`selector` is what the error code is made of where it consists of a selector."""
        super().__init__(check.name)
        self.check = check
        self.selector = selector
        self.details = details
