"""The handshake with several CPUs: waits until the monitor of any of them hands over."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome, Statistics

from .handover import Handover
from .handshake import BUSY_POLL, IDLE_POLL, Handshake
from .layout import Mailbox, SharedMemory
from .machine import QemuMachine
from .rest import Rest


class MachineWasReset(ProcessorLost):
    """Another CPU has reset the machine, while the monitor of one was to execute a command."""

    def __init__(self) -> None:
        super().__init__("another CPU has reset the machine while this one was stopped")


class OtherHandover(Handover):
    """The handover of a CPU that is not the boot CPU."""

    boot: Mailbox

    def _check_reset(self) -> None:
        if self.boot.placing:
            self.running = False
            raise MachineWasReset

    def _check_answer(self) -> None:
        """The firmware answers by the boot CPU alone."""


class Reporting(Protocol):
    """What reads what QEMU's gdbstub reports: `BoardStops`."""

    def take(self) -> None:
        """Do what a stop means that it has reported, if any."""

    @property
    def acknowledge_pause(self) -> Callable[[], None]:
        """See `Inserted.acknowledge_pause`."""


class Together:
    """The mailboxes of all CPUs as one. Implements `rest.Keeper`."""

    def __init__(self, handovers: Sequence[Handover]) -> None:
        self._handovers = handovers

    @property
    def running(self) -> bool:
        """The monitor has any."""
        return any(one.running for one in self._handovers)

    @property
    def kept_for(self) -> float:
        """Seconds for which the host has had all."""
        return min(one.kept_for for one in self._handovers)


class Handshakes(Handshake):
    """The handshake of the boot CPU, which waits for the others too."""

    def __init__(
        self, machine: QemuMachine, shared: SharedMemory, on_wake: Callable[[], None], others: Sequence[OtherHandover]
    ) -> None:
        super().__init__(machine.qemu, shared, on_wake, machine.watchdog, machine.damage, machine.resets)
        self.all: tuple[Handover, ...] = (self, *others)
        """The boot CPU's first."""
        self.shared_rest = Rest(machine.qmp, Together(self.all))
        for one in others:
            one.boot, one.running = shared.mailbox, False  # until the boot CPU has let it come

    def serve(self, stops: Reporting) -> None:
        """Listen to QEMU's gdbstub, also while one CPU is waited for, and let QEMU be paused when all are kept."""
        self.watch(self._qemu.gdb.fileno())
        self.shared_rest.on_pause = stops.acknowledge_pause
        for one in self.all:
            one.on_wait, one.rest = stops.take, self.shared_rest

    @property
    def total(self) -> Statistics:
        """Of all: how often the host was the owner, and for how long of each CPU's time, on average."""
        parts = [one.statistics for one in self.all]
        return Statistics(sum(one.exits for one in parts), sum(one.stopped for one in parts) / len(parts))

    @property
    def is_back(self) -> bool:
        """Whether the monitor, or the firmware after a reset by another CPU, has handed the mailbox over."""
        return bool(self._owner[0]) and (self.running or bool(self._mailbox.placing))

    @property
    def expects_report(self) -> bool:
        """Whether the firmware was told where the shared memory is, and the monitor has not reported yet."""
        return self._expected is not None

    def _check_answer(self) -> None:
        if self._mailbox.placing:
            self.running = True  # it is yet to be taken
            raise MachineWasReset

    def wait(self, deadline: float | None) -> Outcome | None:
        """Wait until at least one mailbox is back, draining the rings meanwhile. The rest is as for one CPU.

        VMEXIT: some are back (`Handover.is_back`), and none is taken.
        """
        self._set_attended(1, deadline)
        if self.reported:
            for _ in range(self._spin.begin()):
                if self._is_any_back():
                    self._spin.found()
                    return Outcome.VMEXIT
            self._spin.in_vain()
        poll = BUSY_POLL
        while True:
            self._set_attended(0, deadline)
            if not self._is_any_back():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self._drain()
                    self.check_monitor()
                    return Outcome.DEADLINE
                if self._sleep(poll if left is None else min(poll, left)):
                    return None
            else:
                self._drain_doorbell()
            poll = BUSY_POLL if self._drain() else IDLE_POLL
            if self._is_any_back():
                return Outcome.VMEXIT
            if self._qemu.process.poll() is not None:
                self._drain()
                return Outcome.OFF
            self._watch()

    def _is_any_back(self) -> bool:
        return any(one.is_back for one in self.all)

    def _set_attended(self, attended: int, deadline: float | None) -> None:
        for one in self.all:
            one.attend(attended, deadline)

    def _drain(self) -> int:
        return sum(one.ring.drain() for one in self.all)
