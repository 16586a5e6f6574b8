"""What a CPU of several asks of its board: `board.QemuBoard` has it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from trapline.machine.board import Board
from trapline.machine.processor import Outcome, Statistics

from .apic import ApicCpu


class OwnBoard(Board, Protocol):
    """A `machine.Board`, and what a CPU has that is the machine's."""

    @property
    def bus(self) -> Sequence[ApicCpu]:
        """The CPUs, as their local APICs reach each other."""

    @property
    def tsc_frequency(self) -> int | None:
        """See `machine.Processor`, as for the others."""

    @property
    def statistics(self) -> Statistics:
        """Of all CPUs."""

    def run_alone(self, number: int, deadline: float | None) -> Outcome:
        """Execute one CPU."""

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """Give a sink the records of all CPUs."""

    def kick(self) -> None:
        """Stop the guest."""

    def shutdown(self) -> None:
        """Reset the machine."""

    def close(self) -> None:
        """End QEMU."""

    def prepare_stops(self, places: Iterable[tuple[int, int]]) -> None:
        """Raise UsageError for addresses, with sizes, that cannot be watched; stop all CPUs for the others."""
