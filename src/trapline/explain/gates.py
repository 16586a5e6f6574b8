"""Causes in the IDT and its gates."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from trapline.arch.delivery import Failed, checks
from trapline.arch.descriptors import ATTRIBUTES_LOW, DPL_SHIFT, GATE_PRESENT, REAL_IDT_LIMIT, GateType, attributes
from trapline.arch.paging import PAGE
from trapline.arch.vectors import mnemonic

from . import pages, repairs
from .attempt import Attempt, Change, Finding

_IDT: Final = (checks.IDT_LIMIT, checks.IDT_ADDRESS, checks.IDT_PAGE)
_CONTENT: Final = (
    *_IDT, checks.GATE_TYPE, checks.GATE_PRESENT, checks.CODE_NULL, checks.CODE_LIMIT, checks.CODE_TYPE,
)  # fmt: skip
"""Checks that fail where something else is read as a gate."""
_TYPE: Final = 0x1F
"""Bits 44:40 of a gate, shifted down (APM 4.7.5, 4.8.3)."""
_DESCRIPTOR_TYPES: Final = {
    GateType.TASK: "a task gate",
    GateType.INTERRUPT_16: "a 16-bit interrupt gate",
    GateType.TRAP_16: "a 16-bit trap gate",
    0x0C: "a call gate",
    0x04: "a 16-bit call gate",
    0x02: "an LDT descriptor",
    0x09: "a TSS descriptor",
    0x0B: "a TSS descriptor",
}
_NOT_IN_LONG_MODE: Final = (GateType.TASK, GateType.INTERRUPT_16, GateType.TRAP_16)
_REAL_LIMITS: Final = (REAL_IDT_LIMIT, 0xFFFF)
"""Of the vector table of real mode: as a BIOS leaves it, and after RESET."""


def findings(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """Yield what may be wrong, the most specific first."""
    if failed.check in _CONTENT:
        yield from never_loaded(attempt)
    if failed.check not in _IDT:
        yield from _without_memory(attempt)
    yield from legacy_layout(attempt)
    rule = _RULES.get(failed.check)
    if rule is not None:
        yield from rule(attempt, failed)


def never_loaded(attempt: Attempt) -> Iterator[Finding]:
    """An IDTR as RESET, a BIOS or a loader leaves it."""
    idtr = attempt.save.idtr
    if attempt.real or idtr.base:
        return
    if idtr.limit in _REAL_LIMITS:
        yield Finding(
            f"no IDT is loaded for protected mode: IDTR (base 0, limit {idtr.limit:#x}) is still that of real "
            "mode, whose vector table has no gates.",
            repairs.new_idt(attempt),
            early=True,
        )
    elif not idtr.limit:
        yield Finding("no IDT is loaded: IDTR has base 0 and limit 0.", repairs.new_idt(attempt), early=True)


def _without_memory(attempt: Attempt) -> Iterator[Finding]:
    """An IDT that reads as all ones."""
    gpa = attempt.unbacked(attempt.gate_gva)
    if gpa is not None:
        yield Finding(
            f"the IDT is at {attempt.save.idtr.base:#x}, but its page is mapped to {gpa & -PAGE:#x}, where there is "
            "no memory.",
            repairs.new_idt(attempt),
        )


def legacy_layout(attempt: Attempt) -> Iterator[Finding]:
    """8-byte gates in long mode, whose gates have 16 bytes: the second half of those is never a gate."""
    if not attempt.long:
        return
    idtr, vector = attempt.save.idtr, attempt.event.vector
    gates = (attempt.read(idtr.base + 8 * number, 8) for number in (vector, vector ^ 1))
    if 8 * (vector | 1) + 7 <= idtr.limit and all(gate is not None and _is_legacy(gate) for gate in gates):
        yield Finding(
            "the IDT has the 8-byte gates of protected mode, but in long mode a gate has 16 bytes.",
            repairs.new_idt(attempt),
        )


def _is_legacy(gate: int) -> bool:
    """Return whether 8 bytes are a present interrupt or trap gate of 32 bits."""
    return bool(gate & GATE_PRESENT) and (gate >> ATTRIBUTES_LOW & _TYPE) | GateType.TRAP == GateType.TRAP_32


def _limit(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    limit, size, vector = failed.details["limit"], attempt.gate_size, attempt.event.vector
    count, full = (limit + 1) // size, 256 * size - 1
    with_limit = Change(f"with IDTR.limit {full:#x}", {"idtr.limit": full})
    with_gate = (
        change._replace(text=f"{with_limit.text} and a gate in entry {vector}", registers=with_limit.registers)
        for change in repairs.own_gate(attempt)
    )
    yield Finding(
        f"IDTR.limit is {limit:#x}: the IDT has {count or 'no'} {'entry' if count == 1 else 'entries'}, and "
        f"{mnemonic(vector)} is entry {vector}.",
        chain([with_limit], with_gate, repairs.new_idt(attempt)),
    )


def _unreadable(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    page = pages.repair_failed(attempt, failed)
    changes = [] if page is None else [page._replace(text=f"with the page of the IDT mapped ({page.text})")]
    yield Finding(
        f"the IDT is at {attempt.save.idtr.base:#x}, which is {pages.why_failed(attempt, failed)}.",
        chain(changes, repairs.new_idt(attempt)),
    )


def _type(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    gate = attempt.gate
    kind = gate >> ATTRIBUTES_LOW & _TYPE
    what = _DESCRIPTOR_TYPES.get(kind, f"a descriptor of type {kind:#x}") if gate else "empty (all zero)"
    mode = " in long mode" if attempt.long and gate and kind in _NOT_IN_LONG_MODE else ""
    better = gate & ~(_TYPE << ATTRIBUTES_LOW) | GateType.INTERRUPT_32 << ATTRIBUTES_LOW
    with_type = _stored(attempt, better, "with type 0xe, an interrupt gate, in the entry") if gate else ()
    yield Finding(
        f"{entry_name(attempt)} is {what}{mode}, not an interrupt or trap gate.",
        chain(with_type, repairs.own_gate(attempt)),
    )


def _present(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    with_p = _stored(attempt, attempt.gate | GATE_PRESENT, "with the P bit of the gate set")
    yield Finding(
        f"{entry_name(attempt)} is not present: its P bit is clear.", chain(with_p, repairs.own_gate(attempt))
    )


def _dpl(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    dpl = attributes(attempt.gate) >> DPL_SHIFT & 3
    yield Finding(
        f"a program at CPL {attempt.save.cpl} may not call {entry_name(attempt)}: the gate's DPL is {dpl}.",
        _stored(attempt, attempt.gate | 3 << ATTRIBUTES_LOW + DPL_SHIFT, "with DPL 3 in the gate"),
    )


def entry_name(attempt: Attempt) -> str:
    """Return the name of the gate, as "IDT entry 6 (#UD)"."""
    return f"IDT entry {attempt.event.vector} ({mnemonic(attempt.event.vector)})"


def _stored(attempt: Attempt, gate: int, text: str) -> Iterator[Change]:
    stores = attempt.store(attempt.gate_gva, gate, 8)
    if stores is not None:
        yield Change(text, {}, stores)


def _handler(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    canonical = failed.check is checks.HANDLER_LIMIT
    wrong = "beyond the limit of its code segment" if canonical else "which is not a canonical address"
    yield Finding(
        f"the handler in {entry_name(attempt)} is at {failed.details['rip']:#x}, {wrong}.", repairs.own_gate(attempt)
    )


_RULES: Final = {
    checks.IDT_LIMIT: _limit,
    checks.IDT_ADDRESS: _unreadable,
    checks.IDT_PAGE: _unreadable,
    checks.GATE_TYPE: _type,
    checks.GATE_PRESENT: _present,
    checks.GATE_DPL: _dpl,
    checks.HANDLER_ADDRESS: _handler,
    checks.HANDLER_LIMIT: _handler,
}
