"""Causes in the TSS and in the stacks that a delivery pushes on."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from trapline.arch.delivery import Failed, checks
from trapline.arch.descriptors import Attribute, Selector
from trapline.arch.paging import PAGE, WRITE, Denied

from . import pages, repairs
from .attempt import Attempt, Change, Slot
from .gates import Finding, describe

_TSS: Final = (checks.TSS_LIMIT, checks.TSS_ADDRESS, checks.TSS_PAGE)
_SELECTOR: Final = (
    *(checks.STACK_NULL, checks.STACK_RPL, checks.STACK_LIMIT),
    *(checks.STACK_DPL, checks.STACK_TYPE, checks.STACK_PRESENT),
)
_PUSH: Final = (checks.PUSH_ADDRESS, checks.PUSH_LIMIT, checks.PUSH_PAGE)
_STACK: Final = (*_TSS, *_SELECTOR, *_PUSH, checks.STACK_POINTER)


def findings(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Yield what may be wrong, the most telling first."""
    slot = attempt.slot()
    if failed.check not in _STACK:
        return
    if slot is None:
        yield from _current(attempt, failed)
        return
    tr = attempt.save.tr
    if not tr.selector & Selector.REFERENCE:
        yield Finding(
            f"no TSS is loaded: TR is null, and the delivery takes its stack from {slot.name} of the TSS.",
            repairs.new_tss(attempt, slot),
        )
    gpa = attempt.unbacked(slot.gva)
    if gpa is not None and failed.check is not checks.TSS_LIMIT:
        yield Finding(
            f"the TSS is at {tr.base:#x}, but its page is mapped to {gpa & -PAGE:#x}, where there is no memory.",
            repairs.new_tss(attempt, slot),
        )
    if failed.check is checks.TSS_LIMIT:
        yield Finding(
            f"the TSS ends at offset {tr.limit:#x}, its limit: before the end of {slot.name}, which is at offset "
            f"{slot.offset:#x}.",
            chain(
                [Change("with a TSS limit of 0x67", {"tr.limit": 0x67})],
                (
                    change._replace(text=f"{change.text}, and a limit of 0x67", registers={"tr.limit": 0x67})
                    for change in repairs.slot_value(attempt, slot)
                ),
            ),
        )
    elif failed.check in _TSS:
        yield from _unreadable(attempt, failed, slot)
    elif failed.check in _SELECTOR:
        yield from _selector(attempt, failed, slot)
    else:
        yield from _value(attempt, failed, slot)


def _unreadable(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    gva, reason = failed.details["gva"], pages.why_failed(attempt, failed)
    page = pages.repair_failed(attempt, failed)
    first = [] if page is None else [page._replace(text=f"with the page of the TSS mapped ({page.text})")]
    yield Finding(
        f"the TSS, at {attempt.save.tr.base:#x}, cannot be read for {slot.name}: {gva:#x} is {reason}.",
        chain(first, repairs.new_tss(attempt, slot)),
    )


def _selector(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    selector = attempt.read(slot.gva + slot.width, 2) or 0
    level = slot.name[-1]
    what = describe(attempt, selector, attempt.descriptor(selector))
    tail = f", with RPL {selector & 3}" if failed.check is checks.STACK_RPL else ""
    yield Finding(
        f"SS{level} in the TSS is {selector:#x}: {what}{tail}; a stack needs writable data of ring {level}.",
        _selectors(attempt, slot),
    )


def _selectors(attempt: Attempt, slot: Slot) -> Iterator[Change]:
    for selector in repairs.data_selectors(attempt):
        stores = attempt.store(slot.gva + slot.width, selector, 2)
        if stores is not None:
            yield Change(f"with the data selector {selector:#x} in SS{slot.name[-1]}", {}, stores)
    yield from repairs.slot_value(attempt, slot)


def _value(attempt: Attempt, failed: Failed, slot: Slot) -> Iterator[Finding]:
    value = attempt.read(slot.gva, slot.width) or 0
    changes = repairs.slot_value(attempt, slot)
    if value == 0:
        yield Finding(f"{slot.name} in the TSS is zero: the delivery has no stack.", changes)
        return
    if failed.check in (checks.STACK_POINTER, checks.PUSH_ADDRESS):
        yield Finding(f"{slot.name} in the TSS is {value:#x}, which is not a canonical address.", changes)
    elif failed.check is checks.PUSH_LIMIT:
        yield Finding(f"{slot.name} in the TSS is {value:#x}, outside its stack segment.", changes)
    else:
        gva, reason = failed.details["gva"], pages.why_failed(attempt, failed)
        yield Finding(
            f"{slot.name} in the TSS is {value:#x}, but a push there fails: {gva:#x} is {reason}.",
            chain(_page(attempt, failed), changes),
        )


def _page(attempt: Attempt, failed: Failed) -> Iterator[Change]:
    page = pages.repair_failed(attempt, failed, empty=True)
    if page is not None:
        yield page._replace(text=f"with the stack's page mapped ({page.text})")


def _current(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """The stack that the interrupted program has itself."""
    save, rsp = attempt.save, attempt.save.rsp
    if failed.check is checks.PUSH_LIMIT:
        yield Finding(
            f"the stack pointer is {rsp:#x}, and SS ends at {save.ss.limit:#x}: the pushes do not fit in the segment.",
            _segment(attempt),
        )
        return
    if failed.check is checks.PUSH_ADDRESS:
        yield Finding(f"RSP is {rsp:#x}, which is not a canonical address.", repairs.new_stack(attempt))
        return
    gva, reason = failed.details["gva"], pages.why_failed(attempt, failed)
    changes = chain(repairs.new_stack(attempt), _page(attempt, failed))
    above = (gva | PAGE - 1) + 1 & attempt.space.mask
    if failed.denied is Denied.NOT_PRESENT and above and attempt.translate(above, WRITE) is not None:
        whose = "user" if save.cpl == 3 else "kernel"
        maybe = "" if failed.details["entry"] == 0 else ", or the page should have been mapped"
        yield Finding(
            f"the {whose} stack overflowed: RSP {rsp:#x} has reached the page {gva & -PAGE:#x}, which is not "
            f"mapped, right below mapped memory{maybe}.",
            changes,
        )
    nothing = "RSP is 0: there is no stack" if rsp == 0 else f"RSP is {rsp:#x}, and there is no stack to push on"
    yield Finding(f"{nothing}: {gva:#x} is {reason}.", changes)


def _segment(attempt: Attempt) -> Iterator[Change]:
    wide = attempt.save.ss.attributes & Attribute.DB
    limit = 0xFFFF_FFFF if wide else 0xFFFF
    if attempt.save.ss.limit < limit:
        yield Change(f"with a limit of {limit:#x} in SS", {"ss.limit": limit})
    yield Change("with a stack pointer of 0xff0", {"rsp": attempt.save.rsp & ~0xFFFF | 0xFF0})
    yield from repairs.new_stack(attempt)


__all__ = ["findings"]
