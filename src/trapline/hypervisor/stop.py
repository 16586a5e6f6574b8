"""The answers of an exit handler: the guest resumes, or the run ends."""

from enum import Enum
from typing import NamedTuple, TypeAlias

from trapline.machine.processor import Watchpoint

from .exception import InterceptedException


class StopReason(Enum):
    """Why the guest stopped."""

    OFF = "the guest powered off"
    LEAVING = "the guest is about to end or to reset its machine"
    HALTED = "the guest halted, and nothing can wake it"
    RESET = "the guest reset the machine"
    SHUTDOWN = "the guest shut down (triple fault)"
    TIMEOUT = "the timeout expired"
    INTERRUPTED = "it was interrupted"
    EXCEPTION = "an observer stopped it at an exception"
    BREAKPOINT = "it reached a breakpoint"
    WATCHPOINT = "it accessed watched memory"
    STEP = "it executed a step"
    FAILED = "a #VMEXIT without a handler"


class Stop(NamedTuple):
    """An answer that ends the run."""

    reason: StopReason
    detail: str = ""
    """More text; for FAILED the dump of the VMCB."""
    exit: InterceptedException | None = None
    """For EXCEPTION: the exception, which is not delivered yet."""
    watchpoint: Watchpoint | None = None
    """For WATCHPOINT: the one that was hit."""


class Resume(Enum):
    """An answer after which the guest resumes."""

    DONE = "done"
    """The event under delivery at the exit was handled, or there was none."""
    REQUEUE = "requeue"
    """The event under delivery must be injected again."""


Answer: TypeAlias = Resume | Stop
