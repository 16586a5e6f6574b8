"""Checks that any `machine.Processor` must pass.

    with open_my_processor() as processor:
        for check in CHECKS:
            run(check, processor)

Each check writes the guest's memory and the VMCB, lets the processor execute VMRUN, and compares the whole state with
the manual: the exit, its information, every register, and what was stored. The delivery of an event is compared with
the model in `arch.delivery`.
"""

from . import consistency, control_registers, entries, events, exceptions, instructions, interrupts, running
from .check import Check, ConformanceError, Exit, Turn, run, script
from .modes import CODE, CODE_SIZE

_ALL = (
    *entries.CHECKS,
    *exceptions.CHECKS,
    *instructions.CHECKS,
    *control_registers.CHECKS,
    *events.CHECKS,
    *interrupts.CHECKS,
    *consistency.CHECKS,
    *running.CHECKS,
)

CHECKS: tuple[Check, ...] = tuple(check._replace(at=CODE + CODE_SIZE * place) for place, check in enumerate(_ALL, 1))
"""All checks; each has its own name and its own place for code."""

__all__ = ["CHECKS", "Check", "ConformanceError", "Exit", "Turn", "run", "script"]
