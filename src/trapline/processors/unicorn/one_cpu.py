"""What a processor is of one CPU, and what it passes on to the machine: all but `run`, `kick` and the end."""

from collections.abc import Callable, Sequence
from functools import partial

from trapline.arch.cpuid import EAX, FEATURES
from trapline.devices import text_screen
from trapline.devices.machine import BareMachine
from trapline.machine.processor import Statistics, Watchpoint

from .capabilities import capabilities
from .core import Core
from .pc import Pc


class OneCpu:
    """A CPU of a machine, as `machine.Processor` has it."""

    def __init__(self, pc: Pc, core: Core, *, sets_rf: bool) -> None:
        self.pc, self.core = pc, core
        self.memory, self.vmcb, self.gprs, self.msrpm = pc.ram, core.vmcb, core.gprs, core.msrpm
        self.machine: BareMachine = pc.devices
        self.chips = pc.devices.chips
        self.read_screen = partial(pc.ram.read, text_screen.ADDRESS, text_screen.SIZE)
        self.signature = self.cpuid(FEATURES, 0)[EAX]
        self.capabilities = capabilities(sets_rf=sets_rf)
        self.tsc_frequency: int | None = 1_000_000_000

    @property
    def hints(self) -> Sequence[str]:
        """Sentences about devices that the guest accessed and that the machine does not have."""
        return self.machine.hints

    @property
    def halted(self) -> bool:
        """See `machine.Processor.halted`; a CPU that waits for a startup IPI is too."""
        return self.core.cpu.halted or not self.core.is_started

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`; the counter goes by nanoseconds."""
        return self.pc.left - self.pc.clock.started

    @property
    def hit(self) -> Watchpoint | None:
        """See `machine.Processor.hit`."""
        return self.core.loop.hit

    @property
    def exit_status(self) -> int | None:
        """See `machine.Processor.exit_status`."""
        return self.pc.exit_status

    @property
    def statistics(self) -> Statistics:
        """Counts of the run so far."""
        return self.pc.statistics

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`. The words themselves are read in the VMCB."""
        self.core.forwarding.set_vectors(forwarded)

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`."""
        self.pc.check_open()
        self.core.breakpoints.set(addresses)

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`."""
        self.pc.check_open()
        self.core.watchpoints.set(watched)

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        for core in self.pc.cores:
            core.forwarding.set_sink(sink)

    def read_fpu(self) -> bytes:
        """See `machine.Processor.read_fpu`."""
        self.pc.check_open()
        return self.core.engine.read_fpu()

    def write_fpu(self, image: bytes) -> None:
        """See `machine.Processor.write_fpu`."""
        self.pc.check_open()
        self.core.engine.write_fpu(image)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See `machine.Processor.cpuid`."""
        self.pc.check_open()
        return self.core.cpuid(leaf, subleaf)

    def receive(self, data: bytes) -> None:
        """Give the guest's serial port bytes to read; only while the guest is stopped."""
        self.pc.receive(data)

    @property
    def unanswered(self) -> float:
        """For how many seconds Unicorn has been told to stop, and has not."""
        return self.pc.host.pacemaker.unanswered

    def abandon(self, *, crashed: bool, executing: bool) -> None:
        """Give the CPU up, whose thread does not return: because Unicorn crashed, or for another reason.

        What was recorded reaches the sink. `executing`: the thread is in Unicorn; the VMCB then gets the state at the
        beginning of the block of code that it executes.
        """
        self.pc.abandon(crashed=crashed, executing=executing)

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self.pc.shutdown()

    def close(self) -> None:
        """See `machine.Processor.close`. RAM and Unicorn's memory are freed at once, or as soon as `run` ends."""
        self.pc.close()
