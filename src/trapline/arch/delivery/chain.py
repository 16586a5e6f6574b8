"""What becomes of an event in the end: delivered, or failure after failure up to a shutdown (APM 8.2.9, 15.7.3)."""

from typing import NamedTuple

from trapline.arch.events import Event, Shutdown, combine
from trapline.arch.paging import PHYSICAL_BITS, PhysicalMemory
from trapline.arch.vmcb import SaveArea

from .model import deliver
from .outcome import Delivered, Failed, Write


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
    seen = _Stored(memory)
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


class _Stored:
    """Memory with stores on top that are not really made."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._bytes: dict[int, int] = {}

    def store(self, writes: list[Write]) -> None:
        for gpa, data in writes:
            self._bytes.update(enumerate(data, gpa))

    def u32(self, gpa: int) -> int:
        return self._patched(gpa, self._memory.u32(gpa), 4)

    def u64(self, gpa: int) -> int:
        return self._patched(gpa, self._memory.u64(gpa), 8)

    def _patched(self, gpa: int, value: int, size: int) -> int:
        for offset in range(size):
            byte = self._bytes.get(gpa + offset)
            if byte is not None:
                value = value & ~(0xFF << 8 * offset) | byte << 8 * offset
        return value
