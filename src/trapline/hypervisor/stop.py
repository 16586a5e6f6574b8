"""Why a vCPU stopped running."""

from enum import Enum
from typing import NamedTuple


class Reason(Enum):
    """What ended `Vcpu.run`."""

    OFF = "the guest switched the machine off"
    HALTED = "the guest halted, and nothing can wake it"
    RESET = "the guest reset the machine"
    SHUTDOWN = "the guest shut down (triple fault)"
    DEADLINE = "the time was up"
    OBSERVER = "an observer stopped it"
    UNEXPECTED = "an exit that nobody handles"


class Stop(NamedTuple):
    """A handler's answer that leaves the loop."""

    reason: Reason
    detail: str = ""
    """More in words; for UNEXPECTED the dumped VMCB."""
