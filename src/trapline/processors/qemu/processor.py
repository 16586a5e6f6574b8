"""QEMU as a processor: entries, exits and resets."""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from trapline.arch.exits import ExitCode
from trapline.machine.processor import Outcome, Statistics, Watchpoint

from . import pci
from .aside import Aside
from .damage import EXITS, Damage
from .deliveries import Deliveries
from .ending import ended
from .facts import Facts, capabilities
from .firmware import Firmware
from .gdb import GdbClient
from .handshake import Handshake
from .hostmem import ProcessMemory
from .inspection import read_chips, read_screen
from .kicks import Kicks
from .layout import Command, SharedMemory
from .msrs import Msrs
from .plans import write_plans
from .ports import Ports
from .power_on import PowerOn
from .process import QemuProcess
from .qmp import Qmp
from .quirks import Quirks
from .quirks_kvm import KvmQuirks
from .quirks_tcg import TcgQuirks
from .ram import Ram
from .resets import Resets
from .stopped_cpu import StoppedCpu
from .stops import Stops, why_unavailable
from .ticks import Ticks
from .watchdog import Watchdog


class QemuProcessor:
    """A QEMU machine whose CPU executes VMRUN for us. Implements `machine.Processor`."""

    def __init__(
        self,
        qemu: QemuProcess,
        firmware: Firmware,
        block: ProcessMemory,
        ram: Ram,
        *,
        accelerator: str,
        isolated: bool,
        facts: Facts,
    ) -> None:
        """`facts`: what the QEMU was found to do with the accelerator."""
        self._qemu, self._block, self.memory = qemu, block, ram
        self._shared = SharedMemory(qemu.monitor)
        self._mailbox = self._shared.mailbox
        self.vmcb, self.gprs, self.msrpm = self._shared.vmcb, self._shared.gprs, self._shared.msrpm
        self.capabilities = capabilities(accelerator, facts)
        self.exit_status: int | None = None
        self.has_uefi = firmware.uefi
        tcg = accelerator == "tcg"
        self._mailbox.ram_low = ram.low_end if tcg else 0
        self._qmp = Qmp(qemu.qmp)
        self.chips, self.read_screen = partial(read_chips, self._qmp), partial(read_screen, self._qmp)
        watchdog = Watchdog(qemu.command, self._mailbox, self._qmp.run_state)
        mapped = partial(self._qmp.has_memory_at, slot=pci.MONITOR_DEVICE[0], function=pci.MONITOR_DEVICE[1])
        self._damage = Damage(self._shared, isolated=isolated, q35=ram.machine_is_q35, mapped=mapped)
        self._resets = Resets(qemu.log, self._damage)
        self._handshake = Handshake(qemu, self._shared, self._on_wake, watchdog, self._damage, self._resets)
        cpu = StoppedCpu(self._shared, self._handshake)
        self.cpuid, self.read_fpu, self.write_fpu = cpu.cpuid, cpu.read_fpu, cpu.write_fpu
        self._power_on = PowerOn(
            *(qemu.command, self._shared, self._qmp, firmware, block, ram),
            accelerator=accelerator,
            isolated=isolated,
            facts=facts,
        )
        self._quirks: Quirks = (TcgQuirks if tcg else KvmQuirks)(self._shared, ram, facts)
        self._ports = Ports(self._shared, self._handshake, ram, qemu.command, splits=accelerator == "kvm")
        self.hints = self._ports.hints
        self._ticks = Ticks(qemu.command, self._handshake, self._mailbox)
        aside = Aside(self._shared, self._handshake)
        self._msrs = Msrs(self._shared, aside, ram, tcg=tcg)
        self._kicks = Kicks(self._handshake, self._qmp, aside, self._quirks.nmis, watches=tcg)
        self._handshake.watch(qemu.gdb.fileno())
        why = why_unavailable(accelerator, qemu.command)
        self._stops = Stops(GdbClient(qemu.gdb), self._qmp, self._shared, ram, why)
        self._deliveries = Deliveries(self._shared, ram, facts)
        self._begun = False
        self._owed: Outcome | None = None  # what the instruction led to besides the access that is reported first
        self._forwarded = 0

    @property
    def signature(self) -> int:
        """EDX as RESET left it."""
        return self._mailbox.signature

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`."""
        return self._mailbox.tsc

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

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._handshake.ring.sink = sink

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`."""
        self._forwarded = forwarded
        self._quirks.note_intercepts()
        self._write_intercepts()

    def _write_intercepts(self) -> None:
        """Write the intercepts of the VMCB, and what the monitor does with each exception by itself."""
        recorded, watching = self._forwarded, bool(self._stops.watchpoints)
        unwanted = self._quirks.write_intercepts(stopping=bool(self._stops), watching=watching)
        if watching:
            recorded = unwanted = 0
        self._ports.watch()
        self._msrs.watch()
        sets_rf = self.capabilities.forwards_set_rf
        write_plans(
            self._shared.plans, recorded=recorded, forwarded=unwanted, arm=self._quirks.arm_for, sets_rf=sets_rf
        )

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        outcome = None if self._handshake.running else self._start_guest()
        while outcome is None:
            outcome = self._handshake.wait(deadline)
            if outcome is None:
                self._stops.take()
            elif outcome is Outcome.OFF:
                outcome = self._ended()
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
        self._power_on.leave_firmware()
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
            return forced
        if self._fetches_vectors() and self._deliveries.fetch_vector():
            return None
        control = self.vmcb.control
        if control.exit_code == ExitCode.IOIO and not self._ports.answer():
            return Outcome.LEAVING if self._ports.leaving else None
        if control.exit_code == ExitCode.MSR and self._msrs.concerned and not self._msrs.answer():
            return None
        if not self._quirks.after_exit():
            return None
        code = control.exit_code
        if code not in EXITS:
            self._damage.check_exit(code)
        if code != ExitCode.NMI or not self._quirks.nmis.foreign:
            return Outcome.VMEXIT
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
        self._resets.order()
        self._handshake.give(Command.SHUTDOWN)

    def close(self) -> None:
        """End QEMU and release the memory."""
        self._qmp.close()
        self._qemu.close()
        self._block.close()
        self._handshake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _enter(self) -> None:
        if self._stops.watchpoints:
            self._deliveries.before_entry(self._stops.watchpoints)
        self._quirks.entering()
        self._stops.apply()
        self._handshake.give(Command.LOAD_AND_RESUME)

    def _place(self) -> None:
        """The machine was switched on or reset, and the firmware waits for the address of the shared memory."""
        self._resets.check()
        self._power_on.place()
        self.capabilities = self.capabilities._replace(physical_bits=self._shared.base.bit_length())
        self._handshake.expect_report()

    def _begin(self) -> Outcome:
        """The machine was switched on or reset: initialise everything of ours."""
        self._resets.begin()
        self._damage.keep()
        outcome = Outcome.WOKEN if self._begun and self._qmp.woke_up() else Outcome.RESET
        self._begun = self._kicks.begun = True
        self._power_on.initialise()
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

    def _ended(self) -> Outcome:
        if not self._handshake.reported:
            raise self._qemu.launch_error()
        qemu, reason = self._qemu, self._qmp.shutdown_reason()
        end = ended(qemu.process.returncode, qemu.errors, by_guest=self._ports.ended, reason=reason)
        self.exit_status = end.exit_status
        self.hints += end.hints
        begun, self._begun = self._begun, False  # there is no machine that could begin again
        return end.outcome if begun else Outcome.OFF
