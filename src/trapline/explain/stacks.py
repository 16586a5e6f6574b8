"""Causes in the TSS and in the stack that a delivery pushes on."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from trapline.arch.delivery import Failed, checks
from trapline.arch.descriptors import TSS_SIZE, Attribute, Selector
from trapline.arch.paging import PAGE, WRITE, Denied

from . import pages, repairs
from .attempt import Attempt, Change, Finding, Slot
from .segments import describe

_TSS: Final = (checks.TSS_LIMIT, checks.TSS_ADDRESS, checks.TSS_PAGE)
_SELECTOR: Final = (
    *(checks.STACK_NULL, checks.STACK_RPL, checks.STACK_LIMIT),
    *(checks.STACK_DPL, checks.STACK_TYPE, checks.STACK_PRESENT),
)
_PUSH: Final = (checks.PUSH_ADDRESS, checks.PUSH_LIMIT, checks.PUSH_PAGE)
_STACK: Final = (*_TSS, *_SELECTOR, *_PUSH, checks.STACK_POINTER)
_TSS_LIMIT: Final = TSS_SIZE - 1
"""Of a TSS without an I/O map (APM 12.2.4, 12.2.5)."""


def findings(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Yield what may be wrong, the most specific first."""
    if failed.check not in _STACK:
        return
    slot = attempt.slot()
    if slot is None:
        yield from _current(attempt, failed)
        return
    yield from _no_tss(attempt, failed, slot)
    if failed.check is checks.TSS_LIMIT:
        yield from _limit(attempt, slot)
    elif failed.check in _TSS:
        yield from _unreadable(attempt, failed, slot)
    elif failed.check in _SELECTOR:
        yield from _selector(attempt, failed, slot)
    else:
        yield from _pointer(attempt, failed, slot)


def _no_tss(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    tr = attempt.save.tr
    if not tr.selector & Selector.REFERENCE:
        yield Finding(
            f"no TSS is loaded: TR is null, and the delivery takes its stack from {slot.name} in the TSS.",
            repairs.new_tss(attempt, slot),
        )
    gpa = attempt.unbacked(slot.gva)
    if gpa is not None and failed.check is not checks.TSS_LIMIT:
        yield Finding(
            f"the TSS is at {tr.base:#x}, but its page is mapped to {gpa & -PAGE:#x}, where there is no memory.",
            repairs.new_tss(attempt, slot),
        )


def _limit(attempt: Attempt, slot: Slot) -> Iterator[Finding]:
    limit = {"tr.limit": _TSS_LIMIT}
    with_stack = (
        change._replace(text=f"{change.text}, and a TSS limit of {_TSS_LIMIT:#x}", registers=limit)
        for change in repairs.slot_value(attempt, slot)
    )
    yield Finding(
        f"the TSS limit is {attempt.save.tr.limit:#x}, and {slot.name} is at offset {slot.offset:#x}.",
        chain([Change(f"with a TSS limit of {_TSS_LIMIT:#x}", limit)], with_stack),
    )


def _unreadable(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    page = pages.repair_failed(attempt, failed)
    changes = [] if page is None else [page._replace(text=f"with the page of the TSS mapped ({page.text})")]
    yield Finding(
        f"the TSS is at {attempt.save.tr.base:#x}, and {slot.name} cannot be read: "
        f"{failed.details['gva']:#x} is {pages.why_failed(attempt, failed)}.",
        chain(changes, repairs.new_tss(attempt, slot)),
    )


def _selector(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    selector, level = attempt.read(slot.gva + slot.width, 2) or 0, slot.level
    rpl = f", with RPL {selector & Selector.RPL}" if failed.check is checks.STACK_RPL else ""
    yield Finding(
        f"SS{level} in the TSS is {selector:#x}, which is {describe(attempt, selector)}{rpl}; "
        f"the stack for CPL {level} must be writable data of DPL {level}.",
        chain(_selectors(attempt, slot), repairs.slot_value(attempt, slot)),
    )


def _selectors(attempt: Attempt, slot: Slot) -> Iterator[Change]:
    """Yield the TSS with another stack selector."""
    for selector in repairs.data_selectors(attempt):
        stores = attempt.store(slot.gva + slot.width, selector, 2)
        if stores is not None:
            yield Change(f"with the data selector {selector:#x} in SS{slot.level}", {}, stores)


def _pointer(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    value = attempt.read(slot.gva, slot.width) or 0
    changes = repairs.slot_value(attempt, slot)
    if value == 0:
        yield Finding(f"{slot.name} in the TSS is zero: the delivery has no stack.", changes)
    elif failed.check in (checks.STACK_POINTER, checks.PUSH_ADDRESS):
        yield Finding(f"{slot.name} in the TSS is {value:#x}, which is not a canonical address.", changes)
    elif failed.check is checks.PUSH_LIMIT:
        yield Finding(f"{slot.name} in the TSS is {value:#x}, outside its stack segment.", changes)
    else:
        yield Finding(
            f"{slot.name} in the TSS is {value:#x}, but a push there fails: "
            f"{failed.details['gva']:#x} is {pages.why_failed(attempt, failed)}.",
            chain(_page(attempt, failed), changes),
        )


def _page(attempt: Attempt, failed: Failed) -> Iterator[Change]:
    page = pages.repair_failed(attempt, failed, empty=True)
    if page is not None:
        yield page._replace(text=f"with the stack's page mapped ({page.text})")


def _current(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """The stack of the interrupted program, which the handler shares."""
    save, rsp = attempt.save, attempt.save.rsp
    if failed.check is checks.PUSH_LIMIT:
        yield Finding(
            f"the stack pointer is {rsp:#x}, and the SS limit is {save.ss.limit:#x}: the pushes do not fit.",
            _segment(attempt),
        )
        return
    if failed.check is checks.PUSH_ADDRESS:
        yield Finding(f"RSP is {rsp:#x}, which is not a canonical address.", repairs.new_stack(attempt))
        return
    gva, reason = failed.details["gva"], pages.why_failed(attempt, failed)
    if failed.denied is not Denied.NOT_PRESENT:
        protected = ", and CR0.WP is set" if failed.denied is Denied.READ_ONLY else ""
        yield Finding(
            f"the stack cannot be written: RSP is {rsp:#x}, and {gva:#x} is {reason}{protected}.",
            (*_page(attempt, failed), *repairs.new_stack(attempt)),
        )
    changes = (*repairs.new_stack(attempt), *_page(attempt, failed))
    above = (gva | PAGE - 1) + 1 & attempt.space.mask
    if failed.denied is Denied.NOT_PRESENT and above and attempt.translate(above, WRITE) is not None:
        whose = "user" if save.cpl == 3 else "kernel"
        maybe = "" if failed.details["entry"] == 0 else "; or the page should have been mapped"
        yield Finding(
            f"the {whose} stack overflowed: RSP is {rsp:#x}, the page at {gva & -PAGE:#x} is not mapped, and the page "
            f"above it is{maybe}.",
            changes,
        )
    yield Finding(f"RSP is {rsp:#x}, which does not point to a stack: {gva:#x} is {reason}.", changes)


def _segment(attempt: Attempt) -> Iterator[Change]:
    save = attempt.save
    limit = 0xFFFF_FFFF if save.ss.attributes & Attribute.DB else 0xFFFF
    if save.ss.limit < limit:
        yield Change(f"with an SS limit of {limit:#x}", {"ss.limit": limit})
    yield Change("with a stack pointer of 0xff0", {"rsp": save.rsp & ~0xFFFF | 0xFF0})
    yield from repairs.new_stack(attempt)
