"""Text for a failed check of a delivery, with the values that the check used."""

from trapline.arch.delivery import Failed, checks
from trapline.arch.descriptors import DPL_SHIFT, attributes

from . import pages
from .attempt import Attempt
from .segments import describe

_CODE = (checks.CODE_LIMIT, checks.CODE_TYPE, checks.CODE_DPL, checks.CODE_PRESENT, checks.CODE_LONG)
_STACK = (checks.STACK_RPL, checks.STACK_LIMIT, checks.STACK_DPL, checks.STACK_TYPE, checks.STACK_PRESENT)


def failure(attempt: Attempt, failed: Failed) -> str:
    """Return what was wrong, as a clause."""
    check, details = failed.check, failed.details
    entry = f"IDT entry {attempt.event.vector}"
    if check is checks.IDT_LIMIT:
        return f"{entry} is beyond IDTR.limit {details['limit']:#x}"
    if check is checks.GATE_TYPE:
        return f"{entry} is not an interrupt or trap gate"
    if check is checks.TASK_GATE:
        return f"{entry} is a task gate: the task of TSS {details['task']:#x} starts"
    if check is checks.GATE_PRESENT:
        return f"{entry} is not present"
    if check is checks.GATE_DPL:
        dpl = attributes(details["gate"]) >> DPL_SHIFT & 3
        return f"{entry} has DPL {dpl}, and the CPL is {details['cpl']}"
    if check in (*_CODE, *_STACK):
        selector = details["selector"]
        return f"{check.text}: selector {selector:#x} is {describe(attempt, selector)}"
    if failed.denied is not None:
        return f"{check.text}: {details['gva']:#x} is {pages.why_failed(attempt, failed)}"
    values = ", ".join(
        f"{name} {value:#x}" for name, value in details.items() if name not in ("vector", "gate", "descriptor")
    )
    return f"{check.text} ({values})" if values else check.text
