"""Causes in the handler's code segment and in the tables of descriptors."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from trapline.arch.delivery import Failed, checks
from trapline.arch.descriptors import ATTRIBUTES_HIGH, ATTRIBUTES_LOW, DPL_SHIFT, Attribute, Selector, attributes
from trapline.arch.paging import PAGE

from . import pages, repairs
from .attempt import Attempt, Change, Finding
from .gates import entry_name

_CODE: Final = (
    *(checks.CODE_NULL, checks.CODE_LIMIT, checks.CODE_TYPE, checks.CODE_DPL, checks.CODE_PRESENT),
    *(checks.CODE_LONG, checks.CODE_RING_0),
)
_SYSTEM: Final = {
    0x01: "a 16-bit TSS", 0x02: "an LDT", 0x03: "a 16-bit TSS", 0x05: "a task gate", 0x09: "a TSS", 0x0B: "a busy TSS",
    0x0C: "a call gate", 0x0E: "an interrupt gate", 0x0F: "a trap gate",
}  # fmt: skip
"""APM vol. 2, 4.7.4."""
_L, _D = Attribute.L << ATTRIBUTES_HIGH, Attribute.DB << ATTRIBUTES_HIGH
_DPL: Final = 3 << ATTRIBUTES_LOW + DPL_SHIFT


def findings(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Yield what may be wrong, the most specific first."""
    if failed.check in _CODE:
        if not attempt.selector & Selector.TI:
            yield from _without_memory(attempt)
        yield from _code(attempt, failed)
    elif failed.check in (checks.TABLE_ADDRESS, checks.TABLE_PAGE):
        yield from _unreadable(attempt, failed)


def describe(attempt: Attempt, selector: int) -> str:
    """Say what a selector refers to, as the end of a sentence."""
    table = "LDT" if selector & Selector.TI else "GDT"
    register = attempt.save.ldtr if selector & Selector.TI else attempt.save.gdtr
    if not selector & Selector.REFERENCE:
        return "null"
    if selector & Selector.TI and not register.selector & Selector.REFERENCE:
        return "in the LDT, and none is loaded: LDTR is null"
    descriptor = attempt.descriptor(selector)
    if descriptor is None:
        if (selector & Selector.INDEX) + 7 > register.limit:
            return f"beyond the end of the {table} (limit {register.limit:#x})"
        return f"in the {table} at {register.base:#x}, which cannot be read"
    if not descriptor:
        return f"an empty entry of the {table}"
    kept = attributes(descriptor)
    if not kept & Attribute.S:
        kind = _SYSTEM.get(kept & Attribute.TYPE, "a system segment")
    elif kept & Attribute.CODE:
        bits = 64 if kept & Attribute.L else 32 if kept & Attribute.DB else 16
        kind = f"{bits}-bit code"
        if kept & Attribute.L and kept & Attribute.DB:
            kind = "code with both L and D set"
        if kept & Attribute.CONFORMING:
            kind = f"conforming {kind}"
    else:
        kind = "a data segment"
    absent = "" if kept & Attribute.P else " that is not present"
    return f"{kind} of DPL {kept >> DPL_SHIFT & 3}{absent}"


def _without_memory(attempt: Attempt) -> Iterator[Finding]:
    """A GDT that reads as all ones."""
    base = attempt.save.gdtr.base
    gpa = attempt.unbacked(base + (attempt.selector & Selector.INDEX))
    if gpa is not None:
        yield Finding(
            f"the GDT is at {base:#x}, but its page is mapped to {gpa & -PAGE:#x}, where there is no memory.",
            repairs.new_gdt(attempt),
        )


def _code(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    selector, save = attempt.selector, attempt.save
    entry, what = entry_name(attempt), describe(attempt, selector)
    same = (selector ^ save.cs.selector) & Selector.INDEX == 0 and not selector & Selector.TI
    held = save.cs.attributes & Attribute.CODE and save.cpl == 0 and not attempt.real
    if same and held and save.cs.selector & Selector.REFERENCE and not _is_descriptor_of_cs(attempt, selector):
        yield Finding(
            f"the GDT has changed since CS was loaded: {selector:#x}, the selector in {entry}, is now {what}.",
            _changes(attempt, selector, failed),
        )
    yield Finding(
        f"the selector {selector:#x} in {entry} is {what}{_required(attempt, failed)}.",
        _changes(attempt, selector, failed),
    )


def _required(attempt: Attempt, failed: Failed) -> str:
    if failed.check is checks.CODE_DPL:
        return f", but a handler's DPL must not be above the CPL, {attempt.save.cpl}"
    if failed.check is checks.CODE_RING_0:
        return ", but in virtual-8086 mode a handler must be nonconforming code of DPL 0"
    return ", but in long mode a handler must be 64-bit code" if failed.check is checks.CODE_LONG else ""


def _is_descriptor_of_cs(attempt: Attempt, selector: int) -> bool:
    """Return whether the descriptor of a selector has the attributes with which CS was loaded."""
    descriptor = attempt.descriptor(selector)
    if descriptor is None:
        return False
    ignored = Attribute.ACCESSED | 1 << 8
    return not (attributes(descriptor) ^ attempt.save.cs.attributes) & ~ignored & 0xFFF


def _changes(attempt: Attempt, selector: int, failed: Failed) -> Iterator[Change]:
    return chain(
        _limits(selector, failed), _descriptors(attempt, selector), _selectors(attempt), repairs.new_gdt(attempt)
    )


def _limits(selector: int, failed: Failed) -> Iterator[Change]:
    """Yield a limit with which the table includes the descriptor."""
    if failed.check is checks.CODE_LIMIT:
        register = "ldtr" if selector & Selector.TI else "gdtr"
        limit = (selector & Selector.INDEX) + 7
        yield Change(f"with {register.upper()}.limit {limit:#x}", {f"{register}.limit": limit})


def _descriptors(attempt: Attempt, selector: int) -> Iterator[Change]:
    """Yield the descriptor with one field changed."""
    descriptor = attempt.descriptor(selector)
    if descriptor is None:
        return
    register = attempt.save.ldtr if selector & Selector.TI else attempt.save.gdtr
    for better, text in (
        (descriptor | Attribute.P << ATTRIBUTES_LOW, "with the P bit of the descriptor set"),
        (descriptor & ~_D | _L, "with L=1 and D=0 in the descriptor"),
        (descriptor & ~_DPL, "with DPL 0 in the descriptor"),
    ):
        stores = attempt.store(register.base + (selector & Selector.INDEX), better, 8)
        if stores is not None and better != descriptor:
            yield Change(text, {}, stores)


def _selectors(attempt: Attempt) -> Iterator[Change]:
    """Yield the gate with another selector."""
    for selector in repairs.code_selectors(attempt):
        stores = attempt.store(attempt.gate_gva, attempt.gate & ~(0xFFFF << 16) | selector << 16, 8)
        if stores is not None:
            yield Change(f"with the code selector {selector:#x} in the gate", {}, stores)


def _unreadable(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    gva, reason = failed.details["gva"], pages.why_failed(attempt, failed)
    page = pages.repair_failed(attempt, failed)
    changes = [] if page is None else [page._replace(text=f"with the page of the descriptor mapped ({page.text})")]
    yield Finding(
        f"the delivery needs the descriptor at {gva:#x}, which is {reason}.", chain(changes, repairs.new_gdt(attempt))
    )
