"""The IDT: real mode's vector table (APM 8.6), the gates of protected mode (4.7.5) and of long mode (4.8.4)."""

from collections.abc import Mapping, Sequence
from typing import Final

from trapline.arch.delivery import Check, checks
from trapline.arch.descriptors import (
    DPL_SHIFT,
    GATE_PRESENT,
    GateType,
    attributes,
    gate_offset_32,
    gate_offset_64,
    gate_selector,
    gate_type,
)
from trapline.arch.vectors import Vector, mnemonic
from trapline.explain.attempt import Attempt
from trapline.explain.instruction import Namer

from .step import Drawn, read_entry
from .values import Entry, Field, State, Table

_SHOWN: Final = 32
"""Entries: those of exceptions."""
_NAMED: Final = frozenset(Vector)
_TYPES: Final = {
    GateType.TASK: "task gate",
    GateType.INTERRUPT_16: "16-bit interrupt gate",
    GateType.TRAP_16: "16-bit trap gate",
    GateType.INTERRUPT_32: "interrupt gate",
    GateType.TRAP_32: "trap gate",
}
_FIELDS: Final[Mapping[Check, str]] = {
    checks.GATE_TYPE: "type",
    checks.GATE_PRESENT: "P",
    checks.GATE_DPL: "DPL",
    checks.CODE_NULL: "selector",
    checks.CODE_LIMIT: "selector",
    checks.CODE_TYPE: "selector",
    checks.CODE_DPL: "selector",
    checks.CODE_LONG: "selector",
    checks.CODE_RING_0: "selector",
    checks.HANDLER_ADDRESS: "handler",
    checks.HANDLER_LIMIT: "handler",
}
"""The field of a gate that a failed check is about."""
_ENTRY: Final = (checks.IDT_LIMIT, checks.IDT_ADDRESS, checks.IDT_PAGE)


def gate_table(
    attempt: Attempt, drawn: Sequence[Drawn], name: Namer | None, *, shown: int = _SHOWN, detailed: bool = False
) -> Table:
    """Return the first entries, which are those of exceptions, and of what else was delivered.

    `detailed`: all have fields, and not only those that a delivery used.
    """
    limit = attempt.save.idtr.limit
    used = {each.attempt.event.vector: each for each in reversed(drawn)}
    entries = (_entry(attempt, vector, used.get(vector), name, detailed) for vector in sorted({*range(shown), *used}))
    return Table("IDT", attempt.save.idtr.base, limit, tuple(entries))


def _entry(attempt: Attempt, vector: int, used: Drawn | None, name: Namer | None, detailed: bool) -> Entry:
    size = attempt.gate_size
    gva = attempt.save.idtr.base + vector * size & attempt.space.mask
    label = f"{vector} {mnemonic(vector)}" if vector in _NAMED else str(vector)
    wrong: str | None = None
    field: str | None = None
    users = () if used is None else (used.event,)
    if used is not None and used.failed is not None:
        field = _FIELDS.get(used.failed.check)
        if field is not None or used.failed.check in _ENTRY:
            wrong = used.wrong()
    if (vector + 1) * size > attempt.save.idtr.limit + 1:
        return Entry(label, gva, "", State.BEYOND, used=users, wrong=wrong)
    gate = read_entry(attempt, gva, size)
    if isinstance(gate, State):
        return Entry(label, gva, "", gate, used=users, wrong=wrong)
    if not gate:
        return Entry(label, gva, "", State.EMPTY, used=users, wrong=wrong)
    state = _state(attempt, gate)
    if wrong is not None and state is State.GOOD:
        state = State.WRONG
    fields = _fields(attempt, gate, name, field) if detailed or used is not None else ()
    return Entry(label, gva, _text(attempt, gate, name), state, fields, users, wrong)


def _state(attempt: Attempt, gate: int) -> State:
    if attempt.real:
        return State.GOOD
    if gate_type(gate) | GateType.TRAP != GateType.TRAP_32 and (attempt.long or gate_type(gate) not in _TYPES):
        return State.WRONG
    return State.GOOD if gate & GATE_PRESENT else State.ABSENT


def _place(attempt: Attempt, gate: int) -> tuple[int, int]:
    """Return the selector and the entry point."""
    if attempt.real:
        return gate >> 16 & 0xFFFF, gate & 0xFFFF
    offset = gate_offset_64(gate, gate >> 64) if attempt.long else gate_offset_32(gate)
    return gate_selector(gate), offset


def _handler(attempt: Attempt, gate: int, name: Namer | None) -> str:
    selector, offset = _place(attempt, gate)
    base = selector << 4 if attempt.real else 0
    symbol = None if name is None else name(base + offset)
    return f"{offset:#x}" if symbol is None else f"{offset:#x} {symbol}"


def _kind(gate: int) -> str:
    return _TYPES.get(gate_type(gate), f"type {gate_type(gate):#x}")


def _text(attempt: Attempt, gate: int, name: Namer | None) -> str:
    selector, _ = _place(attempt, gate)
    where = f"{selector:#x}:{_handler(attempt, gate, name)}"
    if attempt.real:
        return where
    stack = f", IST{ist}" if attempt.long and (ist := gate >> 32 & 7) else ""
    return f"{_kind(gate)} {where}, DPL {attributes(gate) >> DPL_SHIFT & 3}{stack}"


def _fields(attempt: Attempt, gate: int, name: Namer | None, wrong: str | None) -> tuple[Field, ...]:
    selector, _ = _place(attempt, gate)
    values = {"handler": _handler(attempt, gate, name), "selector": f"{selector:#x}"}
    if not attempt.real:
        values["type"] = _kind(gate)
        values["DPL"] = str(attributes(gate) >> DPL_SHIFT & 3)
        values["P"] = "1" if gate & GATE_PRESENT else "0"
    if attempt.long:
        values["IST"] = str(gate >> 32 & 7)
    return tuple(Field(key, value, key == wrong) for key, value in values.items())
