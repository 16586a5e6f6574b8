"""From a stop of the guest to the events that a client gets."""

from collections.abc import Iterator
from typing import Final

from trapline.api import Stop
from trapline.arch.vectors import VECTORS
from trapline.errors import TraplineError
from trapline.hypervisor.stop import StopReason
from trapline.report.text import headline
from trapline.typed import one_line

from . import bodies
from .breakpoints import Point
from .debuggee import Debuggee
from .messages import Event

THREAD: Final = 1
"""The number of the first CPU; the protocol counts from 1."""
_SHUTDOWN: Final = "the guest shut down (triple fault): this is its state before the reset"


def output(text: str, category: str = "console") -> Event:
    """Return the event that shows a text."""
    return Event("output", bodies.Output(category, text))


def failure(error: TraplineError) -> Event:
    """Return the event that tells an error."""
    return output(f"trapline: {one_line(str(error.args[0]))}\n", "important")


def stopped(
    reason: str, description: str, text: str | None = None, points: list[Point] | None = None, cpu: int = 0
) -> Event:
    """Return the event that says that the guest stopped; `cpu` is the number of the CPU."""
    hit = [point.number for point in points] if points else None
    return Event("stopped", bodies.Stopped(reason, THREAD + cpu, True, description, text, hit))


def of(stop: Stop, points: list[Point]) -> Event:
    """Return the event of a stop after which the guest can be looked at; `points` are the breakpoints there."""
    cpu = stop.cpu.number
    if stop.exception is not None:
        row = VECTORS[stop.exception.vector]
        return stopped("exception", f"Paused on {row.mnemonic} {row.name}", str(stop.exception), cpu=cpu)
    if stop.reason is StopReason.SHUTDOWN:
        return stopped("exception", "Paused on shutdown (triple fault)", _SHUTDOWN, cpu=cpu)
    if stop.reason in (StopReason.BREAKPOINT, StopReason.WATCHPOINT) and points:
        return stopped(points[0].kind.value, f"Paused on {points[0].kind.value}", points=points, cpu=cpu)
    return stopped(*REASONS.get(stop.reason, ("pause", f"Paused: {stop.reason.value}")), cpu=cpu)


def ended(debuggee: Debuggee) -> Iterator[Event]:
    """Yield the events of a guest that is over: how it ended, and the exit code that `trapline run` would have."""
    result = debuggee.machine.result()
    yield output(f"{headline(result)}\n")
    if result.explanation is not None:
        yield output(f"{result.explanation}\n")
    yield from _gone(result.exit_code)


def failed(error: TraplineError) -> Iterator[Event]:
    """Yield the events of a guest whose processor failed."""
    yield failure(error)
    yield from _gone(error.exit_code)


def _gone(code: int) -> Iterator[Event]:
    yield Event("exited", bodies.Exited(code))
    yield Event("terminated")


REASONS: Final = {
    StopReason.STEP: ("step", "Paused after a step"),
    StopReason.INTERRUPTED: ("pause", "Paused"),
    StopReason.HALTED: ("halted", "Halted: nothing can wake the guest"),
}
"""Of stops that are about nothing else: the reason and the description."""
