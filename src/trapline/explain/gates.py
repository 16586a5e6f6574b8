"""Causes in the IDT, its gates and the handler's code segment."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple

from trapline.arch.delivery import Failed, checks
from trapline.arch.descriptors import DPL_SHIFT, Attribute, GateType, Selector, attributes
from trapline.arch.vectors import mnemonic

from . import pages, repairs
from .attempt import Attempt, Change, is_legacy_gate


class Finding(NamedTuple):
    """A cause that may be named once one of its changes is found to make the delivery work."""

    cause: str
    changes: Iterable[Change]


IDT: Final = (checks.IDT_LIMIT, checks.IDT_ADDRESS, checks.IDT_PAGE)
GATE: Final = (*IDT, checks.GATE_TYPE, checks.GATE_PRESENT, checks.CODE_NULL, checks.CODE_LIMIT, checks.CODE_TYPE)
CODE: Final = (
    *(checks.CODE_NULL, checks.CODE_LIMIT, checks.CODE_TYPE, checks.CODE_DPL, checks.CODE_PRESENT),
    *(checks.CODE_LONG, checks.CODE_RING_0),
)
_GATE_TYPES: Final = {
    GateType.TASK: "a task gate",
    GateType.INTERRUPT_16: "a 16-bit interrupt gate",
    GateType.TRAP_16: "a 16-bit trap gate",
    0x0C: "a call gate",
    0x04: "a 16-bit call gate",
    0x02: "an LDT's descriptor",
    0x09: "a TSS's descriptor",
    0x0B: "a TSS's descriptor",
}
_REAL_LIMITS: Final = (0x3FF, 0xFFFF)
"""Of the vector table of real mode: as a BIOS leaves it, and after RESET."""


def findings(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Yield what may be wrong, the most telling first."""
    yield from _never_loaded(attempt, failed)
    yield from _no_memory(attempt, failed)
    yield from legacy_layout(attempt)
    rule = _RULES.get(failed.check.name)
    if rule is not None:
        yield from rule(attempt, failed)


def _never_loaded(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    idtr = attempt.save.idtr
    if failed.check not in GATE:
        return
    if not attempt.real and idtr.base == 0 and idtr.limit in _REAL_LIMITS:
        yield Finding(
            f"no IDT is loaded for protected mode: IDTR (base 0, limit {idtr.limit:#x}) is still that of real "
            "mode, whose vector table has no gates.",
            repairs.new_idt(attempt),
        )
    elif not attempt.real and idtr.base == 0 and idtr.limit == 0:
        yield Finding("no IDT is loaded: IDTR has base 0 and limit 0.", repairs.new_idt(attempt))


def _no_memory(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Tables in a page that leads nowhere: they read as all ones."""
    if failed.check in IDT:
        return
    gpa = attempt.unbacked(attempt.gate_gva)
    if gpa is not None:
        yield Finding(
            f"the IDT is at {attempt.save.idtr.base:#x}, but its page is mapped to {gpa & -0x1000:#x}, where there is "
            "no memory.",
            repairs.new_idt(attempt),
        )
    elif failed.check in CODE and not attempt.selector & Selector.TI:
        gpa = attempt.unbacked(attempt.save.gdtr.base + (attempt.selector & Selector.INDEX))
        if gpa is not None:
            yield Finding(
                f"the GDT is at {attempt.save.gdtr.base:#x}, but its page is mapped to {gpa & -0x1000:#x}, where there "
                "is no memory.",
                repairs.new_gdt(attempt),
            )


def legacy_layout(attempt: Attempt) -> Iterator[Finding]:
    """8-byte gates where long mode looks for 16-byte ones: the second half of a 16-byte gate is never a gate."""
    if not attempt.long:
        return
    vector, base = attempt.event.vector, attempt.save.idtr.base
    neighbours = (
        attempt.read(base + 8 * number, 8) for number in (vector, vector + 1 if vector % 2 == 0 else vector - 1)
    )
    if (8 * (vector | 1) + 7) <= attempt.save.idtr.limit and all(is_legacy_gate(gate) for gate in neighbours):
        yield Finding(
            "the IDT has the 8-byte gates of protected mode, but in long mode a gate has 16 bytes.",
            repairs.new_idt(attempt),
        )


def _limit(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    limit, size, vector = attempt.save.idtr.limit, attempt.gate_size, attempt.event.vector
    count = (limit + 1) // size
    full = 256 * size - 1
    yield Finding(
        f"IDTR.limit is {limit:#x}: the IDT has {count or 'no'} {'entry' if count == 1 else 'entries'}, and "
        f"{mnemonic(vector)} is entry {vector}.",
        chain(
            [Change(f"with IDTR.limit {full:#x}", {"idtr.limit": full})],
            (
                change._replace(
                    text=f"with IDTR.limit {full:#x} and a gate in entry {vector}",
                    registers={"idtr.limit": full},
                )
                for change in repairs.own_gate(attempt)
            ),
            repairs.new_idt(attempt),
        ),
    )


def _unreadable_idt(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    reason = pages.why_failed(attempt, failed)
    page = pages.repair_failed(attempt, failed)
    changes = [] if page is None else [page._replace(text=f"with the page of the IDT mapped ({page.text})")]
    yield Finding(
        f"the IDT is at {attempt.save.idtr.base:#x}, which is {reason}.", chain(changes, repairs.new_idt(attempt))
    )


def _gate_type(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    gate, vector = attempt.gate, attempt.event.vector
    kind = gate >> 40 & 0x1F
    what = _GATE_TYPES.get(kind, f"a descriptor of type {kind:#x}")
    if not gate:
        what = "empty (all zero)"
    mode = " in long mode" if attempt.long and kind in (GateType.TASK, GateType.INTERRUPT_16, GateType.TRAP_16) else ""
    better = gate & ~(0x1F << 40) | GateType.INTERRUPT_32 << 40
    yield Finding(
        f"IDT entry {vector} ({mnemonic(vector)}) is {what}{mode}, not an interrupt or trap gate.",
        chain(
            _stored(attempt, better, "with type 0xe, an interrupt gate, in it") if gate else (),
            repairs.own_gate(attempt),
        ),
    )


def _gate_present(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    vector = attempt.event.vector
    yield Finding(
        f"IDT entry {vector} ({mnemonic(vector)}) is not present: its P bit is clear.",
        chain(_stored(attempt, attempt.gate | 1 << 47, "with the P bit of the gate set"), repairs.own_gate(attempt)),
    )


def _gate_dpl(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    vector, cpl = attempt.event.vector, attempt.save.cpl
    dpl = attempt.gate >> 45 & 3
    yield Finding(
        f"a program at CPL {cpl} may not call IDT entry {vector} ({mnemonic(vector)}): the gate's DPL is {dpl}.",
        _stored(attempt, attempt.gate | 3 << 45, "with DPL 3 in the gate"),
    )


def _stored(attempt: Attempt, gate: int, text: str) -> Iterator[Change]:
    stores = attempt.store(attempt.gate_gva, gate, 8)
    if stores is not None:
        yield Change(text, {}, stores)


def _code(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Everything about the code segment that the gate names."""
    vector, selector, save = attempt.event.vector, attempt.selector, attempt.save
    entry = f"IDT entry {vector} ({mnemonic(vector)})"
    descriptor = attempt.descriptor(selector)
    what = describe(attempt, selector, descriptor)
    same = (selector ^ save.cs.selector) & Selector.INDEX == 0 and not selector & Selector.TI
    held = save.cs.attributes & Attribute.CODE and save.cpl == 0 and not attempt.real
    changes = chain(
        _limits(attempt, selector, failed),
        _descriptors(attempt, selector, descriptor),
        _selectors(attempt),
        repairs.new_gdt(attempt),
    )
    if same and held and save.cs.selector & Selector.REFERENCE and not _matches(attempt, descriptor):
        yield Finding(
            f"CS {save.cs.selector:#x} was loaded from another descriptor than the GDT has now: there it is {what}, "
            f"and {entry} names it.",
            changes,
        )
    yield Finding(f"the selector {selector:#x} in {entry} is {what}{_wanted(attempt, failed)}.", changes)


def _wanted(attempt: Attempt, failed: Failed) -> str:
    if failed.check is checks.CODE_DPL:
        return f", and a handler's DPL is at most the CPL, {attempt.save.cpl}"
    if failed.check is checks.CODE_RING_0:
        return ", and out of virtual-8086 mode only code of ring 0 is entered that is not conforming"
    return ", but a handler needs 64-bit code" if failed.check is checks.CODE_LONG else ""


def _matches(attempt: Attempt, descriptor: int | None) -> bool:
    """Say whether a descriptor is what CS was loaded from."""
    if descriptor is None:
        return False
    ignored = Attribute.ACCESSED | 1 << 8
    return not (attributes(descriptor) ^ attempt.save.cs.attributes) & ~ignored & 0xFFF


def describe(attempt: Attempt, selector: int, descriptor: int | None) -> str:
    """Say what a selector names."""
    table = "LDT" if selector & Selector.TI else "GDT"
    register = attempt.save.ldtr if selector & Selector.TI else attempt.save.gdtr
    if not selector & Selector.REFERENCE:
        return "null"
    if descriptor is None:
        if (selector & Selector.INDEX) + 7 > register.limit:
            return f"beyond the end of the {table} (limit {register.limit:#x})"
        return f"in the {table} at {register.base:#x}, which cannot be read"
    if not descriptor:
        return f"an empty entry of the {table}"
    kept = attributes(descriptor)
    if not kept & Attribute.S:
        kind = "a system segment"
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


def _limits(attempt: Attempt, selector: int, failed: Failed) -> Iterator[Change]:
    """Yield the table with a limit that reaches over the selector."""
    if failed.check is checks.CODE_LIMIT:
        register = "ldtr" if selector & Selector.TI else "gdtr"
        limit = (selector & Selector.INDEX) + 7
        yield Change(f"with a limit of {limit:#x} in {register.upper()}", {f"{register}.limit": limit})


def _descriptors(attempt: Attempt, selector: int, descriptor: int | None) -> Iterator[Change]:
    """Yield the descriptor with one thing mended."""
    if descriptor is None:
        return
    register = attempt.save.ldtr if selector & Selector.TI else attempt.save.gdtr
    long = descriptor & ~(3 << 53) | 1 << 53
    for better, text in (
        (descriptor | Attribute.P << 40, "with the segment present"),
        (long, "with L=1 and D=0 in the descriptor"),
        (descriptor & ~(3 << 45), "with DPL 0 in the descriptor"),
    ):
        stores = attempt.store(register.base + (selector & Selector.INDEX), better, 8)
        if stores is not None and better != descriptor:
            yield Change(text, {}, stores)


def _selectors(attempt: Attempt) -> Iterator[Change]:
    for selector in repairs.code_selectors(attempt):
        yield from _stored(
            attempt,
            attempt.gate & ~(0xFFFF << 16) | selector << 16,
            f"with the code selector {selector:#x} in the gate",
        )


def _gdt(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    gva, reason = failed.details["gva"], pages.why_failed(attempt, failed)
    page = pages.repair_failed(attempt, failed)
    changes = [] if page is None else [page._replace(text=f"with the page of the GDT mapped ({page.text})")]
    yield Finding(f"a descriptor is needed from {gva:#x}, which is {reason}.", chain(changes, repairs.new_gdt(attempt)))


def _handler(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    vector = attempt.event.vector
    yield Finding(
        f"the handler in IDT entry {vector} ({mnemonic(vector)}) is at {failed.details['rip']:#x}, "
        + ("which is not canonical." if failed.check is checks.HANDLER_ADDRESS else "behind the end of its segment."),
        repairs.own_gate(attempt),
    )


_RULES: Final = {
    checks.IDT_LIMIT.name: _limit,
    checks.IDT_ADDRESS.name: _unreadable_idt,
    checks.IDT_PAGE.name: _unreadable_idt,
    checks.GATE_TYPE.name: _gate_type,
    checks.GATE_PRESENT.name: _gate_present,
    checks.GATE_DPL.name: _gate_dpl,
    **{check.name: _code for check in CODE},
    checks.TABLE_ADDRESS.name: _gdt,
    checks.TABLE_PAGE.name: _gdt,
    checks.HANDLER_ADDRESS.name: _handler,
    checks.HANDLER_LIMIT.name: _handler,
}
