"""QEMU as a processor: a machine with one CPU."""

from collections.abc import Callable

from trapline.arch.exits import ExitCode
from trapline.machine.processor import Outcome, Statistics, Watchpoint

from .cpu import QemuCpu
from .deliveries import Deliveries
from .gdb import GdbClient
from .handshake import Handshake
from .kicks import Kicks
from .layout import Command
from .machine import QemuMachine
from .places import why_unavailable
from .rest import Rest
from .stops import Stops
from .ticks import Ticks


class QemuProcessor(QemuCpu):
    """The CPU of a QEMU machine that has one; it executes VMRUN for us. Implements `machine.Processor`."""

    def __init__(self, machine: QemuMachine) -> None:
        """`machine` has been started."""
        self.board = None
        qemu, shared, damage = machine.qemu, machine.shared, machine.damage
        self._handshake = Handshake(qemu, shared, self._on_wake, machine.watchdog, damage, machine.resets)
        super().__init__(machine, shared, self._handshake)
        self._ticks = Ticks(qemu.command, self._handshake, self._mailbox)
        self._kicks = Kicks(self._handshake, machine.qmp, self._aside, self._quirks.nmis, watches=machine.tcg)
        self._handshake.watch(qemu.gdb.fileno())
        why = why_unavailable(machine.accelerator, qemu.command)
        self._handshake.rest = self._rest = Rest(machine.qmp, self._handshake)
        self._stops = Stops(GdbClient(qemu.gdb), machine.qmp, shared, machine.ram, why, self._rest.awake)
        self._rest.on_pause = self._stops.acknowledge_pause
        self._deliveries = Deliveries(shared, machine.ram, machine.facts)
        self._owed: Outcome | None = None  # what the instruction led to besides the access that is reported first

    @property
    def tsc_frequency(self) -> int | None:
        """See `machine.Processor.tsc_frequency`."""
        return self._ticks.frequency()

    @property
    def statistics(self) -> Statistics:
        """See `machine.Processor.statistics`."""
        return self._handshake.statistics

    @property
    def halted(self) -> bool:
        """See `machine.Processor.halted`."""
        return self._kicks.halted

    @property
    def hit(self) -> Watchpoint | None:
        """See `machine.Processor.hit`."""
        return self._stops.hit

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`; only under TCG."""
        self._stops.set_breakpoints(addresses)
        self._write_intercepts()

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`; only under TCG."""
        self._stops.set_watchpoints(watched)
        self._write_intercepts()

    def _stopping(self) -> tuple[bool, bool]:
        return bool(self._stops), bool(self._stops.watchpoints)

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._handshake.ring.sink = sink

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        outcome = None if self._handshake.running else self._start_guest()
        while outcome is None:
            outcome = self._handshake.wait(deadline)
            if outcome is None:
                self._stops.take()
            elif outcome is Outcome.OFF:
                outcome = self._machine.end(reported=self._handshake.reported, by_guest=self._ports.ended)
            elif outcome is Outcome.VMEXIT and self._mailbox.placing:
                self._place()
                outcome = None
            elif outcome is Outcome.VMEXIT:
                outcome = self._sort_exit()
                if self._stops.take_pending():
                    self._owed, outcome = outcome, Outcome.WATCHPOINT
                elif outcome is None and not self._handshake.running:
                    self._enter()
        return outcome

    def _start_guest(self) -> Outcome | None:
        """Enter the guest for the hypervisor, unless there is something to tell it before."""
        if self._kicks.withdraw():
            return Outcome.KICKED
        if self._owed is not None:
            owed, self._owed = self._owed, None
            return owed
        if self._ports.leave():
            return None
        self._machine.power_on.leave_firmware()
        self._quirks.before_entry()
        self._enter()
        return None

    def _sort_exit(self) -> Outcome | None:
        """Return what the exit means to the hypervisor; None: it was handled here, and the guest is to go on."""
        if self._mailbox.reset:
            return self._begin()
        forced = self._stops.take_outcome()
        if forced is not None:
            self._quirks.drop_exit()
            self._deliveries.cancel()
            return forced
        if self._fetches_vectors() and self._deliveries.fetch_vector():
            return None
        outcome = self._understand_exit()
        if outcome is not Outcome.VMEXIT or self.vmcb.control.exit_code != ExitCode.NMI:
            return outcome
        if not self._quirks.nmis.foreign:
            return outcome
        kicked = self._kicks.absorb()
        if kicked is not None:
            self._handshake.running = False
        return kicked

    def _fetches_vectors(self) -> bool:
        return bool(self._stops.watchpoints) and not self._quirks.wants_interrupts

    def kick(self) -> None:
        """See `machine.Processor.kick`: an NMI that the monitor takes makes the guest leave."""
        self._kicks.kick()

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self._machine.resets.order()
        self._handshake.give(Command.SHUTDOWN)

    def close(self) -> None:
        """End QEMU and release the memory. Safe to call twice."""
        self._rest.close()
        super().close()
        self._handshake.close()

    def _enter(self) -> None:
        if self._stops.watchpoints:
            self._deliveries.before_entry(self._stops.watchpoints)
        self._quirks.entering()
        self._stops.apply()
        self._handshake.give(Command.LOAD_AND_RESUME)

    def _place(self) -> None:
        self._machine.place()
        self.capabilities = self._machine.capabilities
        self._handshake.expect_report()

    def _begin(self) -> Outcome:
        """The machine was switched on or reset: initialise everything of ours."""
        outcome = self._machine.begin()
        self._kicks.begin()
        self._ports.reset()
        self._stops.take_outcome()
        self._stops.take_pending()
        self._owed = None
        self._deliveries.reset()
        self._quirks.reset()
        self._handshake.report_came()
        return outcome

    def _on_wake(self) -> None:
        self._kicks.inject()
