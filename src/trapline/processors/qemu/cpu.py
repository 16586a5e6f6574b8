"""One CPU of a QEMU machine: its part of the shared memory, and what its exits mean."""

from types import TracebackType
from typing import Self

from trapline.arch.exits import ExitCode
from trapline.machine.processor import Outcome

from .aside import Aside
from .damage import EXITS
from .handover import Handover
from .layout import SharedMemory
from .machine import QemuMachine
from .msrs import Msrs
from .plans import write_plans
from .ports import Ports
from .quirks import Quirks
from .quirks_kvm import KvmQuirks
from .quirks_tcg import TcgQuirks
from .stopped_cpu import StoppedCpu


class QemuCpu:
    """What a `machine.Processor` has besides `run`, breakpoints and what is the machine's."""

    def __init__(self, machine: QemuMachine, shared: SharedMemory, handover: Handover) -> None:
        """`shared` is the CPU's part."""
        self._machine, self._shared, self._handover = machine, shared, handover
        self._mailbox = shared.mailbox
        self.vmcb, self.gprs, self.msrpm = shared.vmcb, shared.gprs, shared.msrpm
        self.memory = ram = machine.ram
        self.capabilities = machine.capabilities
        self.chips, self.read_screen, self.hints = machine.chips, machine.read_screen, machine.hints
        self.has_uefi = machine.has_uefi
        self._mailbox.ram_low = ram.low_end if machine.tcg else 0
        self._quirks: Quirks = (TcgQuirks if machine.tcg else KvmQuirks)(shared, ram, machine.facts)
        command = machine.qemu.command
        self._ports = Ports(shared, handover, ram, command, machine.hints, splits=machine.accelerator == "kvm")
        self._aside = Aside(shared, handover)
        self._msrs = Msrs(shared, self._aside, ram, tcg=machine.tcg)
        stopped = StoppedCpu(shared, handover)
        self.cpuid, self.read_fpu, self.write_fpu = stopped.cpuid, stopped.read_fpu, stopped.write_fpu
        self._forwarded = 0

    @property
    def exit_status(self) -> int | None:
        """See `machine.Processor.exit_status`."""
        return self._machine.exit_status

    @property
    def signature(self) -> int:
        """EDX as RESET left it."""
        return self._mailbox.signature

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`."""
        return self._mailbox.tsc

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`."""
        self._forwarded = forwarded
        self._quirks.note_intercepts()
        self._write_intercepts()

    def _stopping(self) -> tuple[bool, bool]:
        """Return whether there are breakpoints or watchpoints, and whether there are watchpoints."""
        return False, False

    def _write_intercepts(self) -> None:
        """Write the intercepts of the VMCB, and what the monitor does with each exception by itself."""
        stopping, watching = self._stopping()
        recorded = self._forwarded
        unwanted = self._quirks.write_intercepts(stopping=stopping, watching=watching)
        if watching:
            recorded = unwanted = 0
        self._ports.watch()
        self._msrs.watch()
        sets_rf = self.capabilities.forwards_set_rf
        write_plans(
            self._shared.plans, recorded=recorded, forwarded=unwanted, arm=self._quirks.arm_for, sets_rf=sets_rf
        )

    def _understand_exit(self) -> Outcome | None:
        """Return what the exit means to the hypervisor; None: it was handled here, and the guest is to go on.

        An access to a port may have handed over to the monitor already.
        """
        control = self.vmcb.control
        if control.exit_code == ExitCode.IOIO and not self._ports.answer():
            return Outcome.LEAVING if self._ports.leaving else None
        if control.exit_code == ExitCode.MSR and self._msrs.concerned and not self._msrs.answer():
            return None
        if not self._quirks.after_exit():
            return None
        if control.exit_code not in EXITS:
            self._machine.damage.check_exit(control.exit_code)
        return Outcome.VMEXIT

    def let_rest(self) -> None:
        """Take note that the guest stands still for long from now on: QEMU is paused without delay."""
        if self._handover.rest is not None:
            self._handover.rest.hurry()

    def close(self) -> None:
        """End QEMU and release the memory. Safe to call twice."""
        self._machine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
