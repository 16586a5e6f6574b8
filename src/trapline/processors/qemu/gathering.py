"""CPUs that were made to leave the guest at one stop of the machine: they go on together, or all stand still.

So a hit stops all of them at one moment, and none executes a HLT in vain on its way to the next stop.
"""

from collections.abc import Sequence

from .board_cpu import BoardCpu


class Gathering:
    """Holds those that have come back until all have."""

    def __init__(self, cpus: Sequence[BoardCpu]) -> None:
        self._cpus = cpus
        self._back: list[BoardCpu] = []

    def add(self, cpu: BoardCpu) -> None:
        """Hold a CPU. What it has to tell is kept; one that has nothing to tell has what lets it go on in `held`."""
        self._back.append(cpu)

    def clear(self) -> None:
        """Forget those that are held: all may go on."""
        self._back.clear()

    def settle(self, *, standing: bool) -> None:
        """Let them go on when all are back and none has anything to tell; `standing`: not even then."""
        if not self._back or any(cpu.stops.forced for cpu in self._cpus):
            return
        back, self._back = self._back, []
        if standing or any(cpu.held is None for cpu in back):
            return
        for cpu in back:
            if cpu.held is not None:
                cpu.held()
