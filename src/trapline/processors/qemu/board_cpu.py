"""One CPU of several: how it is entered, stopped, put to sleep and woken."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.devices import lapic
from trapline.errors import FaultError, ProcessorLost
from trapline.machine.linear import code_address, translate
from trapline.machine.processor import Outcome, Statistics, Watchpoint

from . import apic
from .board_nmis import BoardNmis
from .cpu import QemuCpu
from .cpu_stops import CpuStops
from .handover import NAP, Handover
from .layout import Command, SharedMemory
from .machine import QemuMachine
from .own_board import OwnBoard
from .watchdog import slowness

_HLT: Final = b"\xf4"
_AGAIN: Final = 0.0005
"""Seconds after which a startup IPI is sent again to a CPU that has not woken."""
_PATIENCE: Final = 10.0
"""Seconds that a CPU has to wake up, on a fast machine."""


class BoardCpu(QemuCpu):
    """A CPU of an `OwnBoard`. Implements `machine.Processor`."""

    def __init__(
        self, machine: QemuMachine, shared: SharedMemory, handover: Handover, number: int, board: OwnBoard
    ) -> None:
        self.stops = CpuStops(shared, machine.ram, machine.facts)
        super().__init__(machine, shared, handover)
        self.number, self.handover, self.board = number, handover, board
        self.halted = False
        self.held: Callable[[], None] | None = None
        """What lets the stopped CPU go on; None: it runs, or waits for a startup IPI."""
        self.waits = number > 0
        """It waits for a startup IPI."""
        self.init_comes = False
        """It runs, and is to take an INIT when it leaves the guest."""
        self.startup: int | None = None
        """The vector of a startup IPI that came before it took the INIT."""
        self.asleep = number > 0
        """The monitor halts: it needs a startup IPI to take a command."""
        self.starter: BoardCpu | None = None
        """The CPU whose startup IPI starts this one, and waits for that."""
        self.start_command = 0
        """What that writes to its interrupt command register."""
        self.starting = 0
        """How many CPUs this one is starting."""
        self.nmis = BoardNmis(self.vmcb, self._quirks.nmis, self._aside, lambda: apic.send_nmi(self, self))

    @property
    def apic_id(self) -> int:
        """The id of its local APIC."""
        return self._mailbox.apic_id

    @property
    def running(self) -> bool:
        """Whether the monitor has the mailbox."""
        return self.handover.running

    @property
    def in_guest(self) -> bool:
        """Whether the monitor was told to enter the guest, and has not come back."""
        return self.handover.running and not self.handover.calling and not self.asleep

    @property
    def hit(self) -> Watchpoint | None:
        """See `machine.Processor.hit`."""
        return self.stops.hit

    @property
    def tsc_frequency(self) -> int | None:
        """See `machine.Processor.tsc_frequency`."""
        return self.board.tsc_frequency

    @property
    def statistics(self) -> Statistics:
        """See `machine.Processor.statistics`."""
        return self.board.statistics

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`: the other CPUs stand still."""
        return self.board.run_alone(self.number, deadline)

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`."""
        self.board.prepare_stops((address, 1) for address in addresses)
        self.stops.breakpoints = addresses
        self._write_intercepts()

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`."""
        self.board.prepare_stops((one.address, one.size) for one in watched)
        self.stops.watch(watched)
        self._write_intercepts()

    def _stopping(self) -> tuple[bool, bool]:
        breakpoints, watchpoints = self.stops.places
        return bool(breakpoints or watchpoints), bool(watchpoints)

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self.board.on_records(sink)

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self.board.kick()

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self.board.shutdown()

    def close(self) -> None:
        """End QEMU and release the memory. Safe to call twice."""
        self.board.close()

    def reset(self) -> None:
        """The machine was switched on or reset: begin as it does."""
        self._ports.reset()
        self._quirks.reset()
        self.stops.forget()
        self.nmis.reset()
        self.init_comes = False
        self.held, self.startup = None, None
        self.waits = self.asleep = self.number > 0
        self.starter, self.starting = None, 0
        self.handover.running = False

    def understand(self) -> "Outcome | apic.Command | None":
        """Return what the exit means, to the hypervisor or to other CPUs; None: the guest is to go on.

        It may run already. The NMI by which it was stopped is not an exit.
        """
        if self.stops.take_forced():
            self._quirks.drop_exit()
            return self.stops.outcome()
        if self.stops.fetch_vector(wanted=self._quirks.wants_interrupts):
            return None
        if self.vmcb.control.exit_code == ExitCode.NPF:
            found = apic.execute(self, self.board.bus)
            if isinstance(found, apic.Command):
                return found
            if not found:
                return None
        outcome = self._understand_exit()
        if self.vmcb.control.exit_code != ExitCode.NMI:
            return outcome
        if outcome is Outcome.VMEXIT and self.nmis.foreign:
            self.nmis.absorb()
            self._halt_again()
            self.held = self.enter
            return None
        self.nmis.forget_own()
        return outcome

    def finish(self, command: apic.Command) -> Outcome | None:
        """Return what its exit means besides the command."""
        return self._understand_exit() if command.stepped else None

    def _halt_again(self) -> None:
        """Put a CPU back on a HLT that no interrupt of its own can end, and an NMI of ours has.

        It is known to have waited in it, or was entered there, and may have begun to wait since.
        """
        save = self.vmcb.save
        address = code_address(save) - 1
        if not save.rflags & RFLAGS.IF and (self.halted or self.stops.entered == address):
            with contextlib.suppress(FaultError):
                if self.memory.read(translate(save, self.memory, address), 1) == _HLT:
                    save.rip -= 1

    def is_still_wanted(self, outcome: Outcome) -> bool:
        """Say whether what was kept is still for the hypervisor; False: the guest is to go on."""
        if outcome is Outcome.VMEXIT:
            return self._quirks.is_still_wanted()
        return self.stops.is_wanted(outcome)

    def enter(self) -> None:
        """Enter the guest for the hypervisor, or do what it is about to do to its machine."""
        self.held = None
        if not self._ports.leave():
            self.nmis.settle()
            self._quirks.before_entry()
            self._go()

    def resume(self) -> None:
        """Let the guest go on after an exit that the hypervisor does not know of."""
        self.held = None
        self.nmis.settle()
        self._go()

    def _go(self) -> None:
        self.stops.before_entry()
        self._quirks.entering()
        self.handover.give(Command.LOAD_AND_RESUME)

    def note_nmi(self) -> None:
        """See `apic.ApicCpu.note_nmi`."""
        self.nmis.note()

    def await_init(self) -> None:
        """Note that an NMI of ours is sent, for an INIT. What the guest sends from now on comes after that."""
        self.init_comes = True
        self.nmis.forget_own()
        self.nmis.expect()

    def take_init(self) -> None:
        """Reset what an INIT resets here, and sleep, unless a startup IPI has come already."""
        self.init_comes, self.waits, self.held = False, True, None
        if self.vmcb.control.exit_code == ExitCode.NMI:
            self.nmis.absorb()
        self._ports.reset()
        self._quirks.reset()
        self.stops.forget()
        apic.reset(self)
        if self.startup is None:
            self.handover.call(Command.SLEEP)
            self.asleep = True

    def start(self) -> None:
        """Enter the guest after a startup IPI, which the sender sends in QEMU until this CPU is awake."""
        self._mailbox.awake = 0
        self.handover.restart_clock()
        self.enter()
        if self.asleep:
            self._wake()
            self.asleep = False
        self.release_starter()

    def _wake(self) -> None:
        mailbox = self._mailbox
        limit = time.monotonic() + _PATIENCE * slowness()
        while True:
            assert self.starter is not None, "nobody wakes it"
            self.starter.store(lapic.BASE + lapic.COMMAND, self.start_command)
            again = time.monotonic() + _AGAIN
            while time.monotonic() < again:
                if mailbox.awake:
                    return
                time.sleep(NAP)
            if again > limit:
                raise ProcessorLost(f"CPU {self.number} does not wake up in QEMU")

    def release_starter(self) -> None:
        """The CPU that has started this one does not wait for it any more."""
        starter, self.starter = self.starter, None
        if starter is not None:
            starter.starting -= 1

    @property
    def leaves(self) -> bool:
        """Whether it is about to end or to reset its machine."""
        return self._ports.leaving

    @property
    def ends(self) -> bool:
        """Whether it has ended the machine by a debug exit."""
        return self._ports.ended

    def load(self, address: int) -> int:
        """Read 4 bytes of physical memory as the CPU does, which is stopped."""
        self._mailbox.address = address
        self.handover.call(Command.LOAD)
        return self._mailbox.word

    def store(self, address: int, value: int) -> None:
        """Write 4 bytes."""
        self._mailbox.address, self._mailbox.word = address, value
        self.handover.call(Command.STORE)
