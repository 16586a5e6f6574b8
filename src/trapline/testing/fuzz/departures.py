"""Differences between Unicorn and QEMU that are not ours: each with its proof and a rule that recognises it."""

from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.arch.events import EventType, decode
from trapline.arch.paging import A

from . import places
from .compare import Difference


class Departure(NamedTuple):
    """Something that a processor does otherwise than the manual."""

    name: str
    proof: str
    """The place in the source of QEMU 7.2 or Unicorn 2.1.4 (QEMU 5.0.1), or the section of the manual."""
    matches: Callable[[Difference], bool]
    """Whether a difference between Unicorn (first) and QEMU (second) is this one."""


def _only(difference: Difference, *names: str) -> bool:
    return difference.fields.keys() <= set(names)


def _ext(difference: Difference) -> bool:
    if (
        difference.record is None
        or not _only(difference, "error_code", "event")
        or "error_code" not in difference.fields
    ):
        return False
    ours, theirs = difference.fields["error_code"]
    vectoring = decode(difference.first.records[difference.record].exit_int_info)
    return ours == theirs | 1 and vectoring is not None and vectoring.type != EventType.SOFT


def _idt_code(difference: Difference) -> bool:
    if (
        difference.record is None
        or not _only(difference, "error_code", "event")
        or "error_code" not in difference.fields
    ):
        return False
    ours, theirs = difference.fields["error_code"]
    vectoring = decode(difference.first.records[difference.record].exit_int_info)
    return vectoring is not None and theirs == vectoring.vector * 16 + 2 and ours | 1 == vectoring.vector * 8 + 3


def _pdpt(difference: Difference) -> bool:
    entries = {f"[{places.TABLES + 8 * index:#x}]" for index in range(4)}
    return difference.fields.keys() <= entries and all(one ^ two == A for one, two in difference.fields.values())


DEPARTURES: Final = (
    Departure("EXT", "QEMU: error codes have EXT clear: seg_helper.c, do_interrupt_protected, do_interrupt64", _ext),
    Departure("IDT code", "QEMU: in long mode the code is vector * 16 + 2: seg_helper.c, do_interrupt64", _idt_code),
    Departure("PDPT", "QEMU: a PAE walk marks its first entry accessed: excp_helper.c, mmu_translate", _pdpt),
)


def departure(difference: Difference) -> str | None:
    """Return the name of a known departure, or None."""
    return next((row.name for row in DEPARTURES if row.matches(difference)), None)
