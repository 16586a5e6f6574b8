"""What becomes of an event in the end: delivered, or failure after failure up to a shutdown (APM 8.2.9, 15.7.3)."""

from typing import NamedTuple

from trapline.arch.events import Event, Shutdown, combine
from trapline.arch.memory import Overlay, PhysicalMemory
from trapline.arch.paging import PHYSICAL_BITS
from trapline.arch.vmcb import SaveArea

from .model import deliver
from .outcome import Delivered, Failed


class Step(NamedTuple):
    """One delivery of a chain."""

    event: Event
    outcome: Delivered | Failed
    cr2: int | None
    """CR2 as this step leaves it: each page fault writes it, whatever it is combined to; None: as it was."""
    follows: Event | Shutdown | None
    """What is delivered next; None: the chain ends here."""


def chain(
    save: SaveArea,
    event: Event,
    memory: PhysicalMemory,
    *,
    next_rip: int | None = None,
    physical_bits: int = PHYSICAL_BITS,
    sets_rf: bool = True,
) -> list[Step]:
    """Deliver an event and what follows from it, until something is delivered or the CPU shuts down.

    The state and the memory stay as they are; a step sees what the steps before it stored. See `deliver`.
    """
    steps: list[Step] = []
    seen = Overlay(memory)
    current: Event | Shutdown | None = event
    cr2: int | None = None
    while isinstance(current, Event):
        outcome = deliver(save, current, seen, next_rip=next_rip, physical_bits=physical_bits, sets_rf=sets_rf)
        follows: Event | Shutdown | None = None
        if isinstance(outcome, Failed) and outcome.event is not None:
            cr2 = cr2 if outcome.address is None else outcome.address
            follows = combine(current, outcome.event)
        seen.store(outcome.writes)
        steps.append(Step(current, outcome, cr2, follows))
        current = follows
    return steps
