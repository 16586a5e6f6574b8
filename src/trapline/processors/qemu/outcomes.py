"""What CPUs of a board have come back with, until the hypervisor has been told."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from trapline.machine.processor import Outcome

from .board_cpu import BoardCpu

_OF_ALL: Final = (Outcome.RESET, Outcome.WOKEN, Outcome.OFF)
"""Outcomes of the machine."""


class Outcomes:
    """A queue. A CPU has one in it as a rule, two where an access is told before what else the instruction led to."""

    def __init__(self) -> None:
        self._kept = deque[tuple[BoardCpu, Outcome]]()

    def __iter__(self) -> Iterator[tuple[BoardCpu, Outcome]]:
        return iter(tuple(self._kept))

    def add(self, cpu: BoardCpu, outcome: Outcome) -> None:
        """Keep what a CPU has come back with."""
        self._kept.append((cpu, outcome))

    def keep(self, cpu: BoardCpu, found: Outcome | None) -> None:
        """Keep what an exit means to the hypervisor; None: nothing, the guest is to go on."""
        accessed = cpu.stops.take_trap()
        if accessed:
            cpu.held = None
            self.add(cpu, Outcome.WATCHPOINT)
        if found is not None:
            self.add(cpu, found)
        elif not accessed and not cpu.running and cpu.held is None:
            cpu.held = cpu.resume

    def clear(self) -> None:
        """Forget all: the machine was reset."""
        self._kept.clear()

    def drop(self, cpu: BoardCpu) -> None:
        """Forget those of a CPU that was reset."""
        self._kept = deque(found for found in self._kept if found[0] is not cpu)

    def take(self, executing: Sequence[BoardCpu]) -> tuple[int, Outcome] | None:
        """Return the oldest of what one of these CPUs has come back with, or the machine."""
        for found in self:
            cpu, outcome = found
            if cpu not in executing and outcome not in _OF_ALL:
                continue
            self._kept.remove(found)
            more = any(other is cpu for other, _ in self._kept)
            if not cpu.is_still_wanted(outcome):
                if not more:
                    (cpu.resume if outcome is Outcome.VMEXIT else cpu.enter)()
                continue
            if outcome is Outcome.SIPI:
                cpu.held = cpu.start
            elif outcome not in (Outcome.OFF, Outcome.INIT) and not more:
                cpu.held = cpu.enter
            return cpu.number, outcome
        return None
