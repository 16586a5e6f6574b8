"""The GDT and the LDT (APM 4.6, 4.7, 4.8)."""

from collections.abc import Mapping, Sequence
from typing import Final

from trapline.arch.delivery import Check, checks
from trapline.arch.descriptors import DPL_SHIFT, Attribute, Selector, SystemType, attributes, base, limit
from trapline.explain.attempt import Attempt
from trapline.explain.segments import describe

from .step import Drawn, read_entry
from .values import Entry, Field, State, Table

_SHOWN: Final = 16
_FIELDS: Final[Mapping[Check, tuple[str, ...]]] = {
    checks.CODE_TYPE: ("type",),
    checks.CODE_DPL: ("DPL",),
    checks.CODE_PRESENT: ("P",),
    checks.CODE_LONG: ("L", "D"),
    checks.CODE_RING_0: ("DPL", "type"),
    checks.STACK_TYPE: ("type",),
    checks.STACK_DPL: ("DPL",),
    checks.STACK_PRESENT: ("P",),
}
"""The fields of a descriptor that a failed check is about."""
_ENTRY: Final = (checks.CODE_LIMIT, checks.TABLE_ADDRESS, checks.TABLE_PAGE, checks.STACK_LIMIT)
_SYSTEM_16: Final = (SystemType.LDT, SystemType.TSS_32, SystemType.TSS_32 | SystemType.BUSY, SystemType.CALL_GATE_32)
"""System descriptors that have 16 bytes in long mode (APM 4.8.3)."""
_HELD: Final = ("cs", "ss", "ds", "es", "tr", "ldtr")


def descriptor_table(
    attempt: Attempt, drawn: Sequence[Drawn], table: int, *, shown: int = _SHOWN, detailed: bool = False
) -> Table:
    """Return the first entries, and those that the deliveries used; `table` is Selector.TI for the LDT, 0 for the GDT.

    `drawn` are the deliveries whose gates have a selector of the table. `detailed`: all entries have fields.
    """
    register = attempt.save.ldtr if table else attempt.save.gdtr
    used: dict[int, list[Drawn]] = {}
    for each in drawn:
        used.setdefault(each.selector & Selector.INDEX, []).append(each)
    used = {offset: users for offset, users in used.items() if offset}
    end = min((register.limit + 1) & ~7, 8 * shown)
    entries: list[Entry] = []
    upper = -1
    for offset in sorted({*range(0, end, 8), *used}):
        if offset == upper and offset not in used:
            entries.append(Entry(f"{offset:#x}", register.base + offset, f"upper half of {offset - 8:#x}", State.GOOD))
            continue
        entry, kept = _entry(attempt, offset | table, used.get(offset, []), detailed)
        entries.append(entry)
        if _is_long(attempt, kept):
            upper = offset + 8
    return Table("LDT" if table else "GDT", register.base, register.limit, tuple(entries))


def _entry(attempt: Attempt, selector: int, used: Sequence[Drawn], detailed: bool) -> tuple[Entry, int]:
    """Return an entry and the attributes that it has."""
    table = attempt.save.ldtr if selector & Selector.TI else attempt.save.gdtr
    offset = selector & Selector.INDEX
    gva, label = table.base + offset & attempt.space.mask, f"{selector:#x}"
    users = tuple(dict.fromkeys(each.event for each in used)) + _holders(attempt, selector)
    failed = next((e for e in used if e.failed is not None and e.failed.check in (*_FIELDS, *_ENTRY)), None)
    wrong = None if failed is None else failed.wrong()
    if offset + 7 > table.limit:
        return Entry(label, gva, "", State.BEYOND, used=users, wrong=wrong), 0
    descriptor = read_entry(attempt, gva, 8)
    if isinstance(descriptor, State):
        return Entry(label, gva, "", descriptor, used=users, wrong=wrong), 0
    if not descriptor:
        text = "null" if not selector & Selector.REFERENCE else ""
        return Entry(label, gva, text, State.EMPTY, used=users, wrong=wrong), 0
    kept = attributes(descriptor)
    state = State.WRONG if wrong is not None else State.GOOD if kept & Attribute.P else State.ABSENT
    text = describe(attempt, selector) if selector & Selector.REFERENCE else f"{descriptor:#x}"
    address = base(descriptor)
    if _is_long(attempt, kept):
        upper = read_entry(attempt, gva + 8, 4)
        address |= 0 if isinstance(upper, State) else upper << 32
    if address or not kept & Attribute.S:
        text += f", base {address:#x}, limit {limit(descriptor):#x}"
    marked = () if failed is None or failed.failed is None else _FIELDS.get(failed.failed.check, ())
    fields = _fields(descriptor, marked) if detailed or used else ()
    return Entry(label, gva, text, state, fields, users, wrong), kept


def _is_long(attempt: Attempt, kept: int) -> bool:
    """Return whether a descriptor with these attributes has 16 bytes; 0: there is none."""
    return bool(attempt.long and kept and not kept & Attribute.S and kept & Attribute.TYPE in _SYSTEM_16)


def _holders(attempt: Attempt, selector: int) -> tuple[str, ...]:
    """Return the segment registers that were loaded with a selector."""
    if not selector & Selector.REFERENCE:
        return ()
    held = (name for name in _HELD if not (getattr(attempt.save, name).selector ^ selector) & Selector.REFERENCE)
    return tuple(name.upper() for name in held)


def _fields(descriptor: int, wrong: Sequence[str]) -> tuple[Field, ...]:
    kept = attributes(descriptor)
    values = {
        "base": f"{base(descriptor):#x}",
        "limit": f"{limit(descriptor):#x}",
        "S": str(int(bool(kept & Attribute.S))),
        "type": f"{kept & Attribute.TYPE:#x}",
        "DPL": str(kept >> DPL_SHIFT & 3),
        "P": str(int(bool(kept & Attribute.P))),
        "L": str(int(bool(kept & Attribute.L))),
        "D": str(int(bool(kept & Attribute.DB))),
    }
    return tuple(Field(name, value, name in wrong) for name, value in values.items())
