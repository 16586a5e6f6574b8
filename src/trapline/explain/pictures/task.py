"""The task-state segment: where a delivery finds its stack (APM 12.2.4, 12.2.5)."""

from collections.abc import Mapping, Sequence
from typing import Final

from trapline.arch.delivery import checks
from trapline.arch.descriptors import Attribute, ist_offset, rsp_offset, stack_slot
from trapline.arch.paging import WRITE
from trapline.explain import pages
from trapline.explain.attempt import Attempt, Slot
from trapline.explain.segments import describe

from .step import Drawn, read_entry
from .values import Entry, State, Table, recorded

_ABOUT: Final = (
    *(checks.TSS_LIMIT, checks.TSS_ADDRESS, checks.TSS_PAGE, checks.STACK_POINTER, checks.STACK_NULL),
    *(checks.STACK_RPL, checks.STACK_LIMIT, checks.STACK_DPL, checks.STACK_TYPE, checks.STACK_PRESENT),
)
"""Checks of what the TSS has."""
_PUSH: Final = (checks.PUSH_ADDRESS, checks.PUSH_LIMIT, checks.PUSH_PAGE)

_UNUSED: Final[Mapping[int, Sequence[Drawn]]] = {}


def used_task_state(attempt: Attempt, drawn: Sequence[Drawn]) -> list[Table]:
    """Return the stacks that the TSS has, if a delivery took one from it; else nothing."""
    used: dict[int, list[Drawn]] = {}
    for each in drawn:
        slot = recorded(each.attempt.slot)
        if slot is not None and _took(each):
            used.setdefault(slot.offset, []).append(each)
    return [task_state(attempt, used)] if used else []


def task_state(attempt: Attempt, used: Mapping[int, Sequence[Drawn]] = _UNUSED) -> Table:
    """Return the stacks that the TSS has; `used` are the deliveries that took one, by its offset."""
    tr = attempt.save.tr
    entries = tuple(_entry(attempt, slot, used.get(slot.offset, [])) for slot in _slots(attempt))
    return Table("TSS", tr.base, tr.limit, entries)


def _took(each: Drawn) -> bool:
    """Return whether a delivery came as far as to its stack."""
    return each.failed is None or each.failed.check in (*_ABOUT, *_PUSH, checks.HANDLER_ADDRESS, checks.HANDLER_LIMIT)


def _slots(attempt: Attempt) -> list[Slot]:
    base = attempt.save.tr.base
    if attempt.long:
        places = [(f"RSP{level}", level, rsp_offset(level)) for level in range(3)]
        places += [(f"IST{number}", number, ist_offset(number)) for number in range(1, 8)]
        return [Slot(name, level, base + offset, offset, 8) for name, level, offset in places]
    kind = attempt.save.tr.attributes & Attribute.TYPE
    found = [(level, stack_slot(kind, level)) for level in range(3)]
    name = "ESP" if found[0][1].width == 4 else "SP"
    return [Slot(f"{name}{level}", level, base + place.offset, *place) for level, place in found]


def _entry(attempt: Attempt, slot: Slot, used: Sequence[Drawn]) -> Entry:
    users = tuple(dict.fromkeys(each.event for each in used))
    failed = next((each for each in used if each.failed is not None and each.failed.check in (*_ABOUT, *_PUSH)), None)
    wrong = None if failed is None else failed.wrong()
    if slot.offset + slot.width - 1 > attempt.save.tr.limit:
        return Entry(slot.name, slot.gva, "", State.BEYOND, used=users, wrong=wrong)
    value = read_entry(attempt, slot.gva, slot.width)
    if isinstance(value, State):
        return Entry(slot.name, slot.gva, "", value, used=users, wrong=wrong)
    text = f"{value:#x}"
    if not attempt.long:
        selector = recorded(lambda: attempt.read(slot.gva + slot.width, 2)) or 0
        text = f"{selector:#x}:{text}, {recorded(lambda: describe(attempt, selector)) or State.UNKNOWN.value}"
    if not value:
        return Entry(slot.name, slot.gva, text, State.EMPTY, used=users, wrong=wrong)
    if not attempt.space.is_canonical(value):
        return Entry(slot.name, slot.gva, f"{text}, not canonical", State.WRONG, used=users, wrong=wrong)
    why = recorded(lambda: pages.why(attempt, value - slot.width, WRITE))
    if why is not None:
        text = f"{text}, {why}"
    return Entry(
        slot.name, slot.gva, text, State.GOOD if why is None and wrong is None else State.WRONG, (), users, wrong
    )
