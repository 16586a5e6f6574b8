"""Causes in handlers that raise the exception that they handle, again and again, until the stack is full."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from trapline.arch.delivery import Failed, checks
from trapline.arch.events import EventType
from trapline.arch.paging import FETCH
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector, mnemonic
from trapline.machine.linear import stack_address

from . import gates, pages, repairs
from .attempt import Attempt, Change, Finding
from .evidence import Evidence

_STACK_VALUES: Final = 64
"""How many 64-bit values of the stack are searched for frames."""
_FRAMES: Final = 3
"""The fewest frames of the same instruction that show a loop."""


def findings(attempt: Attempt, evidence: Evidence, failed: Failed) -> Iterator[Finding]:
    """Yield what may be wrong."""
    yield from _not_executable(attempt, evidence)
    yield from _recursive(attempt, failed)


def _not_executable(attempt: Attempt, evidence: Evidence) -> Iterator[Finding]:
    """A handler of #PF or #GP whose first instruction cannot be fetched."""
    event = attempt.event
    fetch = event.vector == Vector.PF and evidence.first_address in (None, attempt.rip)
    stray = event.vector == Vector.GP and not attempt.space.is_canonical(attempt.rip)
    if event.type != EventType.EXCEPTION or not (fetch or stray) or attempt.rip != attempt.entry_point(event.vector):
        return
    reason = pages.why(attempt, attempt.rip, FETCH)
    if reason is None:
        return
    for finding in gates.legacy_layout(attempt):
        yield finding._replace(changes=_executable(attempt, finding.changes))
    high = attempt.rip | ~0xFFFF_FFFF & attempt.space.mask
    truncated = ""
    if attempt.long and attempt.rip >> 31 == 1 and attempt.translate(high, FETCH) is not None:
        truncated = f" The gate lacks the upper 32 bits of {high:#x}."
    name = mnemonic(event.vector)
    yield Finding(
        f"the handler of {name} cannot be fetched: {attempt.rip:#x} is {reason}. "
        f"Each {name} raises another, until the stack is full.{truncated}",
        _executable(attempt, repairs.own_gate(attempt)),
    )


def _executable(attempt: Attempt, gates: Iterable[Change]) -> Iterator[Change]:
    """Yield the handler's page mapped, or another gate, each with a stack that has room."""
    page = pages.mapped(attempt, attempt.rip, FETCH)
    changes = [] if page is None else [page._replace(text=f"with the handler's page mapped ({page.text})")]
    changes += gates
    for stack in repairs.new_stack(attempt):
        for change in changes:
            yield change._replace(registers={**stack.registers, **change.registers})


def _recursive(attempt: Attempt, failed: Failed) -> Iterator[Finding]:
    """A handler that raises its own exception: frames of the same RIP fill the stack."""
    if failed.check is not checks.PUSH_PAGE or attempt.slot() is not None or not attempt.long:
        return
    top = stack_address(attempt.save)
    stack = [attempt.read(top + 8 * number, 8) for number in range(_STACK_VALUES)]
    frames = [at for at, pair in enumerate(pairwise(stack)) if pair == (attempt.save.rip, attempt.save.cs.selector)]
    strides = {after - before for before, after in pairwise(frames)}
    if len(frames) < _FRAMES or len(strides) != 1:
        return
    name = mnemonic(attempt.event.vector)
    others = _others(attempt, stack[frames[0] + 1 : frames[1]])
    raised = f"the handler of {name} raises {name} itself, at {attempt.rip:#x},"
    if others:
        places = " and ".join(f"{place:#x}" for place in (attempt.rip, *others))
        raised = f"exceptions are raised inside the handlers of others, at {places},"
    yield Finding(
        f"{raised} again and again, until the stack is full.",
        repairs.new_stack(attempt),
    )


def _others(attempt: Attempt, values: Sequence[int | None]) -> list[int]:
    """Return the addresses of instructions in further frames among values of the stack (APM vol. 2, 8.9.3)."""
    found = []
    for rip, cs, flags in zip(values, values[1:], values[2:], strict=False):
        if rip is None or flags is None or cs != attempt.save.cs.selector:
            continue
        valid = flags & RFLAGS.ALWAYS_ONE and not flags & RFLAGS.ALWAYS_ZERO
        if valid and not flags >> 32 and attempt.translate(rip, FETCH) is not None:
            found.append(rip)
    return found
