"""How an exit is answered: the guest goes on, or the vCPU stops."""

from enum import Enum
from typing import NamedTuple, TypeAlias

from trapline.machine.processor import Watchpoint

from .exception import InterceptedException


class StopReason(Enum):
    """What ended a run of the guest."""

    OFF = "the guest switched the machine off"
    HALTED = "the guest halted, and nothing can wake it"
    RESET = "the guest reset the machine"
    SHUTDOWN = "the guest shut down (triple fault)"
    TIMEOUT = "the time was up"
    INTERRUPTED = "it was interrupted"
    EXCEPTION = "an observer stopped it at an exception"
    BREAKPOINT = "it reached a breakpoint"
    WATCHPOINT = "it accessed watched memory"
    STEP = "it made a step"
    FAILED = "an exit that nobody handles"


class Stop(NamedTuple):
    """An answer that leaves the loop."""

    reason: StopReason
    detail: str = ""
    """More in words; for FAILED the dumped VMCB."""
    exit: InterceptedException | None = None
    """The exception of EXCEPTION, still undelivered."""
    watchpoint: Watchpoint | None = None
    """What was accessed, after WATCHPOINT."""


class Resume(Enum):
    """An answer after which the guest goes on."""

    DONE = "done"
    """Whatever was being delivered at the exit is settled."""
    REQUEUE = "requeue"
    """What was being delivered is still owed to the guest."""


Answer: TypeAlias = Resume | Stop
