"""How gdb lets a guest go on: vCont, and the older packets c, s, C and S."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from trapline.api import DISCARD, FORWARD, Stop
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.hypervisor.exception import Decision
from trapline.hypervisor.stop import StopReason

from . import signals

CONTINUE: Final = "c"
STEP: Final = "s"
RANGE: Final = "r"
"""Step as long as the guest is in a range of addresses: a source line."""
ACTIONS: Final = b"vCont;c;C;s;S;r"


class Action(NamedTuple):
    """What gdb wants the guest to do."""

    kind: str
    signal: int | None = signals.NONE
    """The signal that gdb passes on to the CPU that stopped; None: nothing is said of that one."""
    start: int = 0
    """The range of addresses, for RANGE."""
    end: int = 0
    cpu: int | None = None
    """The number of the CPU; None: all of them."""


def parse(text: str, cpus: int, stopped: int) -> Action:
    """Read the actions of a vCont packet. A step of one CPU is all that is done then. Raises ValueError.

    `stopped` is the CPU that stopped, to which the first action applies that is about it, or about all.
    """
    found = [
        action._replace(cpu=None if number <= 0 else number - 1)
        for action, threads in _actions(text)
        if (number := int(threads or "0", 16)) <= cpus
    ]
    if not found:
        raise ValueError("no action is about a thread that there is")
    chosen = next((action for action in found if action.kind in (STEP, RANGE)), found[0])
    told = next((action.signal for action in found if action.cpu in (None, stopped)), None)
    return chosen._replace(signal=told)


def _actions(text: str) -> Iterator[tuple[Action, str]]:
    for part in text.split(";"):
        what, _, threads = part.partition(":")
        kind, rest = what[:1], what[1:]
        if kind in (CONTINUE, STEP) and not rest:
            yield Action(kind), threads
        elif kind in ("C", "S"):
            yield Action(kind.lower(), int(rest, 16)), threads
        elif kind == RANGE:
            start, end = rest.split(",")
            yield Action(RANGE, start=int(start, 16), end=int(end, 16)), threads
        else:
            raise ValueError(f"no action is {what!r}")


def decide(target: Target, signal: int | None) -> Decision:
    """Return what a signal says about the exception at which the guest is stopped: signal 0, no exception.

    gdb never passes SIGTRAP on by itself, so exceptions with that signal are delivered in any case. Raises UsageError
    for the signal of another exception.
    """
    exception = target.stop.exception
    own = signals.NONE if exception is None else signals.of_vector(exception.vector)
    if signal in (own, signals.TRAP, None) or exception is None:
        return FORWARD
    if signal == signals.NONE:
        return FORWARD if own == signals.TRAP else DISCARD
    raise UsageError(
        f"{exception.vector.mnemonic} has the signal {own} and gdb passes {signal}: `monitor inject` replaces it"
    )


def execute(target: Target, action: Action, decision: Decision) -> Stop:
    """Let the guest go on, until it stops."""
    if action.kind == CONTINUE:
        return target.resume(decision)
    target.select(action.cpu)
    stop = target.step(decision)
    if action.kind == STEP:
        return stop
    breakpoints = frozenset(target.machine.breakpoints)
    while stop.reason is StopReason.STEP and action.start <= target.cpu.address < action.end:
        if target.cpu.address in breakpoints:
            return stop._replace(reason=StopReason.BREAKPOINT)
        stop = target.step()
    return stop
