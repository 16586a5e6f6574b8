"""How an AMD64 CPU delivers an event in every mode, as a pure function (APM 8.6-8.10).

`deliver` takes the state and a view of physical memory, and answers with the new state and what is pushed, or with the
check that fails and the exception that follows from it. `chain` repeats that until an event is delivered.
"""

from trapline.arch.memory import PhysicalMemory

from .chain import Step, chain
from .checks import Check, Code
from .model import apply, deliver, switch
from .outcome import Delivered, Failed, Frame, Write
from .place import handler_addresses
from .task import Switched

__all__ = [
    "Check",
    "Code",
    "Delivered",
    "Failed",
    "Frame",
    "PhysicalMemory",
    "Step",
    "Switched",
    "Write",
    "apply",
    "chain",
    "deliver",
    "handler_addresses",
    "switch",
]
