"""Why Unicorn stopped, and what comes next."""

from enum import Enum, IntEnum
from typing import Final

from trapline.arch.exits import EXCEPTION_EXITS
from trapline.arch.vectors import Vector

INTERCEPTED: Final = 0x100
"""Added to the exit code of what SVM intercepts. Below are the vectors of exceptions that it does not."""
DEBUG_TRAP: Final = INTERCEPTED + EXCEPTION_EXITS.start + Vector.DB
"""A #DB, which as a rule is a trap: it comes after the instruction."""


class Stop(IntEnum):
    """Stops that are neither an exception nor an intercept.

    But for ASKED the context is as before the instruction.
    """

    ASKED = -1
    """`Binding.stop` was called: the context is between two instructions."""
    SYSCALL = -2
    SYSENTER = -3
    PORT = -4
    """A port access that is not permitted."""
    BREAKPOINT = -7
    MISALIGNED = -8
    """An operand of SSE is not aligned: see `simd`."""
    NO_AVX = -9
    """An instruction of AVX, which Unicorn takes for one of SSE."""
    NO_CODE = -5
    """An instruction was fetched from where no memory is."""
    FAILED = -6
    """Unicorn failed: `Hooks.failure` tells why."""


class Next(Enum):
    """What comes next, once a stop is answered."""

    RESUME = "resume"
    """The guest resumes."""
    EXIT = "exit"
    """The VMCB holds a #VMEXIT."""
    EXECUTE = "execute"
    """Unicorn is to execute the instruction that it stopped at."""
    BREAKPOINT = "breakpoint"
    """The guest is before an instruction at a breakpoint."""
    WATCHPOINT = "watchpoint"
    """The guest is after an instruction that accessed watched memory."""


RESUME: Final = Next.RESUME
"""By a shorter way, for every exception takes it."""
EXIT: Final = Next.EXIT
