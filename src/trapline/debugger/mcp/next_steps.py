"""What to call next, decided by how a run ended."""

from collections.abc import Iterator
from typing import Any

from trapline.arch.events import EventType
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.report.result import Ending
from trapline.report.run import Run

from .answers import NextStep
from .guests import LONGEST, Options
from .stored import Stored

_WELL = (Ending.OFF, Ending.RESET, Ending.DEBUG_EXIT)


def next_steps(stored: Stored, result: Run, timeout: float, options: Options) -> Iterator[NextStep]:
    """Yield the calls that make sense after a run, the best one first."""
    how: dict[str, Any] = {"guest": stored.guest}
    if chosen := options.model_dump(mode="json", exclude_defaults=True):
        how["options"] = chosen
    at = _first_fault(result)
    if at is not None:
        vector, rip = at
        condition = f"{vector.name.lower()} if rip == {rip:#x}"
        yield NextStep(
            tool="stop_at",
            arguments={**how, "at": condition},
            why=f"holds the guest where {vector.mnemonic} is raised, before it is delivered, to look at it",
        )
    if result.ending is Ending.SHUTDOWN:
        yield NextStep(
            tool="stop_at",
            arguments=how,
            why="holds the guest at the shutdown, in the state before the reset: registers, tables, page_walk, memory",
        )
    elif result.findings and result.recorded:
        yield NextStep(
            tool="exceptions",
            arguments={"trace": stored.number, "by": "vector,symbol"},
            why="counts the exceptions by where they were raised",
        )
    if result.ending is Ending.TIMEOUT and at is None and not result.findings:
        yield NextStep(
            tool="stop_at",
            arguments={**how, "timeout": timeout},
            why="holds the guest where it is after this time, to see what it waits for",
        )
        if timeout < LONGEST:
            yield NextStep(
                tool="run",
                arguments={**how, "timeout": min(timeout * 6, LONGEST)},
                why="gives it more time, if it was not done",
            )
    if result.ending in _WELL and at is None and result.recorded:
        yield NextStep(
            tool="exceptions", arguments={"trace": stored.number}, why="lists the exceptions that it handled"
        )


def _first_fault(result: Run) -> tuple[Vector, int] | None:
    """Return vector and RIP of the exception with which the trouble began; None: there is none that can be caught."""
    explanation = result.explanation
    if explanation is not None and explanation.origin is not None:
        event, rip = explanation.origin.event, explanation.origin.rip
        if event.type == EventType.EXCEPTION and FORCEABLE >> event.vector & 1:
            return Vector(event.vector), rip
    if result.unreturned:
        record = result.unreturned[-1].record
        return record.vector, record.rip
    return None
