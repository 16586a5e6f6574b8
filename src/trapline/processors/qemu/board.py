"""A QEMU machine with several CPUs, all of them under the monitor. Implements `machine.Board`.

While the hypervisor handles an exit of one CPU the others go on. Each has a mailbox of its own; an NMI stops a CPU that
executes the guest, sent by one that does not.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from trapline.errors import ProcessorError
from trapline.machine.processor import Outcome, Statistics

from . import apic
from .board_cpu import BoardCpu
from .board_kicks import BoardKicks
from .board_stops import BoardStops
from .gathering import Gathering
from .gdb import GdbClient
from .handshake import SELDOM
from .handshakes import Handshakes, MachineWasReset, OtherHandover
from .layout import Command, SharedMemory
from .machine import QemuMachine
from .outcomes import Outcomes
from .placement import clear_control
from .places import check, why_unavailable
from .process import QemuEnded
from .ring import number_records
from .startups import Startups
from .ticks import Ticks
from .watchdog import slowness

_PATIENCE: Final = 5.0
"""Seconds that a CPU has to stop, on a fast machine."""
_GONE: Final = (MachineWasReset, QemuEnded)  # by another CPU, while one was to do something: it is told elsewhere


class QemuBoard:
    """The CPUs of one machine."""

    def __init__(self, machine: QemuMachine, cpus: int) -> None:
        """`machine` has been started with so many."""
        self._machine = machine
        shares = [machine.shared, *(SharedMemory(machine.qemu.monitor, number) for number in range(1, cpus))]
        whose = (machine.watchdog, machine.damage, machine.resets)
        others = [OtherHandover(machine.qemu, shared, *whose) for shared in shares[1:]]
        self._handshakes = Handshakes(machine, machine.shared, self._on_wake, others)
        self._shares = shares
        for number, shared in enumerate(shares):
            number_records(shared.ring, number)
        self.cpus: Sequence[BoardCpu] = [
            BoardCpu(machine, shared, handover, number, self)
            for number, (shared, handover) in enumerate(zip(shares, self._handshakes.all, strict=True))
        ]
        self.bus, self._boot = self.cpus, self.cpus[0]
        self._ticks = Ticks(machine.qemu.command, self._handshakes, machine.shared.mailbox)
        self._kicks = BoardKicks(self._handshakes, machine.qmp, self.cpus)
        awake = self._handshakes.shared_rest.awake
        self._stops = BoardStops(GdbClient(machine.qemu.gdb), machine.qmp, self.cpus, awake)
        self._handshakes.serve(self._stops)
        self._outcomes = Outcomes()
        self._startups = Startups(self.cpus, self._outcomes)
        self._gathering = Gathering(self.cpus)
        self._pausing = self._alone = False
        self._turns = 0
        self._leaving: BoardCpu | None = None
        """The CPU that is doing what may reset the machine, while the others stand still."""

    @property
    def tsc_frequency(self) -> int | None:
        """See `machine.Processor.tsc_frequency`."""
        return self._ticks.frequency()

    @property
    def statistics(self) -> Statistics:
        """See `machine.Processor.statistics`."""
        return self._handshakes.total

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`: the records of all CPUs."""
        for handover in self._handshakes.all:
            handover.ring.sink = sink

    def run(self, deadline: float | None) -> tuple[int, Outcome]:
        """See `machine.Board.run`."""
        return self._run(self.cpus, deadline)

    def run_alone(self, number: int, deadline: float | None) -> Outcome:
        """Execute one CPU; the others' is kept."""
        return self._run((self.cpus[number],), deadline)[1]

    def pause(self) -> None:
        """See `machine.Board.pause`."""
        if not any(cpu.running for cpu in self.cpus):
            return
        self._kicks.note_halts()
        running = [cpu for cpu in self.cpus if cpu.running and not cpu.stops.forced]
        messenger = next((cpu for cpu in self.cpus if not cpu.running and not cpu.asleep), None)
        if messenger is None and running:
            self._kicks.inject_nmi()
        limit = time.monotonic() + _PATIENCE * slowness()
        self._pausing = True
        try:
            while any(cpu.running for cpu in self.cpus):
                if messenger is not None:
                    with contextlib.suppress(*_GONE):
                        for cpu in running:
                            if cpu.running:
                                cpu.nmis.expect()
                                apic.send_nmi(messenger, cpu)
                    running = []
                self._wait(limit, late=True)
                messenger = messenger or next((cpu for cpu in self.cpus if not cpu.running and not cpu.asleep), None)
        finally:
            self._pausing = False

    def prepare_stops(self, places: Iterable[tuple[int, int]]) -> None:
        """Raise UsageError for addresses, with sizes, that cannot be watched; stop all CPUs for the others."""
        check(places, why_unavailable(self._machine.accelerator, self._machine.qemu.command), self._machine.shared)
        if self._kicks.begun:
            self.pause()

    def kick(self) -> None:
        """See `machine.Processor.kick`. Any thread may call this."""
        self._kicks.kick()

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`: the boot CPU resets the machine."""
        self.pause()
        self._outcomes.clear()
        for cpu in self.cpus:
            cpu.held = None
        self._machine.resets.order()
        self._boot.handover.give(Command.SHUTDOWN)

    def close(self) -> None:
        """End QEMU and release the memory. Safe to call twice."""
        self._handshakes.shared_rest.close()
        self._machine.close()
        self._handshakes.close()

    def _run(self, executing: Sequence[BoardCpu], deadline: float | None) -> tuple[int, Outcome]:
        if (kicked := self._kicks.take(executing)) is not None:
            return 0, kicked
        self._alone = len(executing) < len(self.cpus)
        self._machine.power_on.leave_firmware()
        with contextlib.suppress(*_GONE):
            if self._kicks.begun:
                self._stops.apply(executing)
            self._go_on(executing)
        while True:
            if self._is_overdue(deadline):
                return 0, Outcome.DEADLINE
            with contextlib.suppress(*_GONE):
                found = self._outcomes.take(executing)
                if found is not None:
                    return found
            if (kicked := self._kicks.take(executing)) is not None:
                return 0, kicked
            if self._wait(deadline) is Outcome.DEADLINE:
                return 0, Outcome.DEADLINE

    def _is_overdue(self, deadline: float | None) -> bool:
        """Return whether the deadline has passed, seldom: one CPU comes back while another one's exit is handled."""
        self._turns += 1
        return deadline is not None and not self._turns & SELDOM and time.monotonic() > deadline

    def _go_on(self, executing: Sequence[BoardCpu]) -> None:
        """Let stopped CPUs execute; one that may reset the machine first, and the others if it comes back."""
        self._gathering.clear()
        self._leaving = next((cpu for cpu in executing if cpu.leaves and cpu.held is not None), None)
        if self._leaving is not None and self._leaving.held is not None:
            self._leaving.held()
            return
        while (cpu := next((cpu for cpu in executing if self._may_go_on(cpu)), None)) is not None:
            if cpu.held is not None:
                cpu.held()  # which may let another go on

    def _may_go_on(self, cpu: BoardCpu) -> bool:
        """Whether a CPU is ready to. One that starts others waits for that, unless it is executed alone."""
        return cpu.held is not None and (self._alone or not cpu.starting)

    def _wait(self, deadline: float | None, *, late: bool = False) -> Outcome | None:
        """Wait until a CPU comes back, and sort what comes; `late`: the deadline is an error."""
        outcome = self._handshakes.wait(deadline)
        if outcome is None:
            with contextlib.suppress(*_GONE):
                self._stops.take()
        elif outcome is Outcome.OFF:
            by_guest = any(cpu.ends for cpu in self.cpus)
            self._outcomes.add(self._boot, self._machine.end(reported=self._handshakes.reported, by_guest=by_guest))
            for cpu in self.cpus:
                cpu.handover.running = False
        elif outcome is Outcome.DEADLINE and late:
            number = next(cpu.number for cpu in self.cpus if cpu.running)
            raise ProcessorError(f"CPU {number} cannot be stopped: it blocks NMIs and causes no #VMEXIT")
        elif outcome is Outcome.VMEXIT:
            for cpu in self.cpus:
                if cpu.handover.is_back:
                    cpu.handover.take()
                    with contextlib.suppress(*_GONE):
                        self._sort(cpu)
        return outcome

    def _sort(self, cpu: BoardCpu) -> None:
        """Sort what a CPU has come back with."""
        if cpu is self._boot and self._starts():
            return
        if cpu is self._leaving and not self._pausing:
            self._go_on([one for one in self.cpus if one is not cpu])
        forced = cpu.stops.forced
        if cpu.init_comes:
            self._startups.init(cpu)
        else:
            found = cpu.understand()
            if isinstance(found, apic.Command):
                self._startups.send(cpu, found)
            else:
                self._outcomes.keep(cpu, found)
            if forced:
                self._gathering.add(cpu)
            elif cpu.held is not None and self._may_go_on(cpu) and not self._standing:
                cpu.held()
        self._gathering.settle(standing=self._standing)

    @property
    def _standing(self) -> bool:
        """Whether CPUs that have nothing to tell are to stand still all the same."""
        return self._pausing or self._kicks.pending

    def _starts(self) -> bool:
        """Return whether the boot CPU has come back because of a reset; what that needs is done then."""
        mailbox = self._machine.shared.mailbox
        if mailbox.placing:
            self._place()
        elif mailbox.reset:
            self._begin()
        elif self._handshakes.expects_report:
            # The mailbox was the host's when the firmware wrote `placing`, and only now it has handed over.
            self._handshakes.give(Command.RESUME)
        else:
            return False
        return True

    def _place(self) -> None:
        """The firmware waits for the address of the shared memory. All other CPUs were reset."""
        self._machine.place()
        self._outcomes.clear()
        self._gathering.clear()
        self._leaving = None
        for cpu, shared in zip(self.cpus, self._shares, strict=True):
            shared.base = self._machine.shared.base
            cpu.capabilities = self._machine.capabilities
            cpu.reset()
        self._handshakes.expect_report()

    def _begin(self) -> None:
        """The machine was switched on or reset, and all CPUs are in the monitor: initialise everything of ours."""
        outcome = self._machine.begin()
        control = self._boot.vmcb.control
        for cpu, shared in zip(self.cpus[1:], self._shares[1:], strict=True):
            clear_control(cpu.vmcb.control, shared.block)
            cpu.vmcb.control.np_control, cpu.vmcb.control.ncr3 = control.np_control, control.ncr3
        for cpu in self.cpus:
            cpu.reset()
        self._kicks.begin()
        self._handshakes.report_came()
        self._outcomes.clear()
        self._outcomes.add(self._boot, outcome)

    def _on_wake(self) -> None:
        self._kicks.inject()
