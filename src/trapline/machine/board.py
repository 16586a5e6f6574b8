"""The interface of a machine with several CPUs: processors over one memory and one set of chips."""

from collections.abc import Sequence
from typing import Protocol

from .processor import Outcome, Processor


class Board(Protocol):
    """Executes several CPUs. Each has a VMCB, general registers and an MSRPM of its own.

    What a `Processor` has that is not one CPU's is the machine's, and the same for each of `cpus`: memory, chips,
    screen, hints, statistics, exit status, frequency, and the calls `kick`, `shutdown`, `on_records` and `close`.

    A CPU waits for a startup IPI from the RESET of the machine on, unless it is the boot CPU, and from its INIT on; it
    does not execute before the SIPI.
    """

    @property
    def cpus(self) -> Sequence[Processor]:
        """The CPUs, the boot CPU first. The `run` of one executes that one alone: the others stand still."""

    def run(self, deadline: float | None) -> tuple[int, Outcome]:
        """Execute the CPUs until one of them needs the hypervisor; return its number and why.

        The others may go on executing (until `pause`). RESET and WOKEN are of the machine: they come with number 0, no
        CPU executes then, and the control areas of all are zero. INIT and SIPI are of the CPU that they come with.
        HALTED: no CPU executes, and nothing can wake any; the number is of one that waits in HLT. The rest is as for
        `Processor.run`.
        """

    def pause(self) -> None:
        """Return when no CPU executes any more: their VMCBs and memory can be read and changed.

        What else a CPU has come back with meanwhile is kept: it is what the next `run` returns.
        """
