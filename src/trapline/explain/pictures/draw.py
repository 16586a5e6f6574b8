"""Draws the state of a chain of exceptions."""

from collections.abc import Sequence
from functools import partial

from trapline.arch import delivery
from trapline.arch.delivery import Step
from trapline.arch.descriptors import Selector
from trapline.explain.attempt import Attempt
from trapline.explain.denied import denied_accesses
from trapline.explain.evidence import Evidence
from trapline.explain.instruction import Namer
from trapline.explain.memory import MissingMemory

from .descriptors import descriptor_table
from .gates import gate_table
from .stack import interrupted_stack, pushed_stack
from .step import Drawn
from .task import used_task_state
from .values import Pictures, Stack, Table, recorded
from .walk import page_walk


def draw(chain: Sequence[Evidence], *, chained: bool = True, name: Namer | None = None) -> Pictures:
    """Return the pictures of a chain: evidence of one state, in the order of the exceptions.

    Unless `chained` the exception is drawn by itself: its page walk and the stack.
    """
    last = chain[-1]
    first = chain[0]._replace(save=last.save, gprs=last.gprs, memory=last.memory)
    event = first.vectoring if chained else first.event or first.vectoring
    if event is None:
        return Pictures((), (), ())
    if not chained and first.event is not None:
        first = first._replace(first_address=first.address)
    attempt = Attempt.of(first, event)
    steps = (recorded(partial(_steps, first, attempt)) if chained else None) or ()
    drawn = [Drawn(Attempt(first.save, first.memory, step.event, first.physical_bits), step.outcome) for step in steps]
    accesses = recorded(partial(denied_accesses, first, attempt, steps)) or ()
    walks = (recorded(partial(page_walk, attempt, access)) for access in accesses)
    return Pictures(
        tuple(_tables(drawn, name)),
        tuple(walk for walk in walks if walk is not None),
        tuple(_stacks(attempt, drawn, name)),
    )


def _steps(evidence: Evidence, attempt: Attempt) -> tuple[Step, ...]:
    return tuple(delivery.chain(evidence.save, attempt.event, evidence.memory, physical_bits=evidence.physical_bits))


def _tables(drawn: Sequence[Drawn], name: Namer | None) -> list[Table]:
    """Return the tables that the deliveries used, in the order in which a delivery does."""
    if not drawn:
        return []
    attempt = drawn[0].attempt
    found = [gate_table(attempt, drawn, name)]
    if not attempt.real:
        for table in (0, Selector.TI):
            used = [each for each in drawn if each.selector & Selector.TI == table]
            if used:
                found.append(descriptor_table(attempt, used, table))
        found += used_task_state(attempt, drawn)
    return found


def _stacks(attempt: Attempt, drawn: Sequence[Drawn], name: Namer | None) -> list[Stack]:
    """Return the stacks that deliveries pushed on, each pointer once; without one that of the interrupted code."""
    found: dict[int, Stack] = {}
    for each in drawn:
        try:
            stack = pushed_stack(each, name)
        except MissingMemory:
            continue
        if stack is not None:
            found.setdefault(stack.pointer, stack)
    return list(found.values()) or [interrupted_stack(attempt, name)]
