"""What gdb is told when the guest stops: a stop reply, and a line of text before it."""

from typing import Final, NamedTuple

from trapline.api import Stop
from trapline.hypervisor.stop import StopReason

from . import signals
from .points import Points

_SIGNALS: Final = {
    StopReason.BREAKPOINT: signals.TRAP,
    StopReason.WATCHPOINT: signals.TRAP,
    StopReason.STEP: signals.TRAP,
    StopReason.TIMEOUT: signals.INT,
    StopReason.INTERRUPTED: signals.INT,
    StopReason.SHUTDOWN: signals.ABRT,
    StopReason.HALTED: signals.STOP,
}
EXITED: Final = frozenset({StopReason.OFF, StopReason.RESET, StopReason.FAILED})
"""After these the machine is gone."""


class Told(NamedTuple):
    """A stop as gdb is told it."""

    reply: bytes
    text: str | None
    """A line for the user; None: gdb itself says enough."""


def told(stop: Stop, points: Points, *, details: bool) -> Told:
    """Return what to tell of a stop after which the guest can be looked at; `details`: gdb knows `swbreak`."""
    number = stop.cpu.number
    if stop.exception is not None:
        return Told(
            _reply(number, signals.of_vector(stop.exception.vector)), f"{stop.exception}; `monitor why` explains it"
        )
    kind = b""
    if stop.reason is StopReason.BREAKPOINT and details:
        hardware = points.is_hardware(stop.machine.cpus[number].address)
        kind = b"hwbreak:;" if hardware else b"swbreak:;"
    elif stop.watchpoint is not None:
        name = b"awatch" if stop.watchpoint.reads else b"watch"
        kind = b"%b:%x;" % (name, stop.watchpoint.address)
    text = None
    if stop.reason is StopReason.SHUTDOWN:
        text = f"{stop.reason.value}; this is the state before the reset, and `monitor why` explains it"
    elif stop.reason is StopReason.HALTED:
        text = stop.reason.value
    return Told(_reply(number, _SIGNALS[stop.reason], kind), text)


def _reply(cpu: int, signal: int, kind: bytes = b"") -> bytes:
    return b"T%02x%bthread:%x;" % (signal, kind, cpu + 1)
