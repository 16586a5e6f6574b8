"""A failed check of a delivery in words, with the numbers that it looked at."""

from trapline.arch.delivery import Failed, checks
from trapline.arch.paging import WRITE

from . import pages
from .attempt import SYSTEM, Attempt
from .gates import describe

_GATES = (checks.GATE_TYPE, checks.GATE_DPL, checks.GATE_PRESENT)
_CODE = (checks.CODE_LIMIT, checks.CODE_TYPE, checks.CODE_DPL, checks.CODE_PRESENT, checks.CODE_LONG)
_STACK = (checks.STACK_RPL, checks.STACK_LIMIT, checks.STACK_DPL, checks.STACK_TYPE, checks.STACK_PRESENT)
_WRITES = (checks.PUSH_PAGE, checks.TABLE_PAGE)


def failure(attempt: Attempt, failed: Failed) -> str:
    """Return what was wrong, as a clause."""
    check, details, vector = failed.check, failed.details, attempt.event.vector
    if check is checks.IDT_LIMIT:
        limit = int(details["limit"])
        count = (limit + 1) // attempt.gate_size
        return f"there is no IDT entry {vector}: IDTR.limit {limit:#x} holds {count or 'no'} entr{_plural(count)}"
    if check in _GATES:
        return f"{check.words.replace('the gate', f'IDT entry {vector}').replace('the descriptor', f'entry {vector}')}"
    if check in (*_CODE, *_STACK):
        selector = int(details["selector"])
        return f"{check.words}: selector {selector:#x} is {describe(attempt, selector, attempt.descriptor(selector))}"
    if "reason" in details:
        gva = int(details["gva"])
        reason = (pages.why(attempt, gva, WRITE) if check in _WRITES else None) or pages.why(attempt, gva, SYSTEM)
        return f"{check.words} at {gva:#x}: {reason or details['reason']}"
    numbers = ", ".join(
        f"{name} {value if isinstance(value, str) else hex(value)}"
        for name, value in details.items()
        if name not in ("vector", "gate", "descriptor")
    )
    return f"{check.words} ({numbers})" if numbers else check.words


def _plural(count: int) -> str:
    return "y" if count == 1 else "ies"
