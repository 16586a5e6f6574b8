"""QEMU as a processor: what its exits mean, and what a reset needs."""

import signal
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from trapline.arch.events import ERROR_CODE_VALID, VALID, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.layout import zero
from trapline.arch.registers import EFER, RFLAGS, Gprs
from trapline.arch.vectors import SOFTWARE_EXCEPTIONS, VECTORS, WITH_ERROR_CODE, Kind, Vector, bits
from trapline.arch.vmcb import Vmcb
from trapline.errors import ProcessorError, ProcessorLost, UsageError
from trapline.machine.processor import Capabilities, Outcome, Statistics, Watchpoint
from trapline.machine.record import RecordFlags

from . import bios, nested
from .firmware import Firmware
from .guard import ConfigGuard
from .handshake import Handshake
from .hostmem import ProcessMemory
from .layout import BASE, IOPM_AT, MSRPM_AT, Command, Policy, SharedMemory
from .process import QemuProcess
from .qmp import Qmp
from .quirks_tcg import TcgQuirks
from .ram import Ram
from .version import check_version

_ALWAYS_ASKED: Final = SOFTWARE_EXCEPTIONS | 1 << Vector.DF
"""Vectors that the monitor leaves to Python: their RIP or their error code needs a look."""


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
    ) -> None:
        self._qemu = qemu
        self._firmware = firmware
        self._isolated = isolated
        self._shared = SharedMemory(qemu.monitor)
        self._mailbox = self._shared.mailbox
        self._handshake = Handshake(qemu, self._shared, self._on_wake)
        self._quirks = TcgQuirks(self._shared, ram) if accelerator == "tcg" else None
        self.vmcb: Vmcb = self._shared.vmcb
        self.gprs: Gprs = self._shared.gprs
        self.msrpm = self._shared.msrpm
        self._block = block
        self.memory = ram
        self.exit_status: int | None = None
        self.hit: Watchpoint | None = None
        self.capabilities = Capabilities(
            name=f"QEMU ({accelerator})",
            ts_error_code=accelerator == "tcg",
            hides_svm=accelerator == "tcg",
            keeps_svme=accelerator == "tcg",
            physical_bits=40,
            sets_rf=accelerator != "tcg",
            forwards_set_rf=accelerator != "tcg",
        )
        self._guard = ConfigGuard(self._shared)
        self._fresh = False
        self._kicked = False
        self._qmp = Qmp(qemu.qmp)

    @property
    def hints(self) -> Sequence[str]:
        """Nothing: QEMU's PC is whole."""
        return ()

    @property
    def signature(self) -> int:
        """EDX as RESET left it."""
        return self._mailbox.signature

    @property
    def tsc(self) -> int:
        """See `machine.Processor.tsc`."""
        return self._mailbox.tsc

    @property
    def statistics(self) -> Statistics:
        """See `machine.Processor.statistics`."""
        return self._handshake.statistics

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See `machine.Processor.set_breakpoints`; not implemented for QEMU: raises UsageError."""
        if addresses:
            raise UsageError("this processor has no breakpoints yet")

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """See `machine.Processor.set_watchpoints`; not implemented for QEMU: raises UsageError."""
        if watched:
            raise UsageError("this processor has no watchpoints yet")

    def on_records(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._handshake.ring.sink = sink

    def intercepts_changed(self, forwarded: int) -> None:
        """See `machine.Processor.intercepts_changed`: writes the monitor's plan for each vector."""
        control = self.vmcb.control
        if self._quirks is None:
            self._mailbox.intercepts, silent = control.intercept_exceptions, 0
        else:
            silent = self._quirks.intercepts_changed() | 0xFFFF_FFFF & ~control.intercept_exceptions
        self._guard.watch()
        for row in VECTORS:
            plan = self._shared.plans[row.vector]
            has_code = WITH_ERROR_CODE >> row.vector & 1
            plan.event = VALID | EventType.EXCEPTION << 8 | has_code * ERROR_CODE_VALID | row.vector
            plan.arm = self._quirks.arm_for(row.vector) if self._quirks else 0
            plan.rflags = RFLAGS.RF if self.capabilities.forwards_set_rf and row.kind is Kind.FAULT else 0
            plan.flags = RecordFlags.FORWARDED | has_code * RecordFlags.HAS_ERROR_CODE
            plan.flags |= RecordFlags.HAS_ADDRESS if row.vector == Vector.PF else 0
            plan.policy = Policy.ASK
        for vector in bits(silent & ~_ALWAYS_ASKED):
            self._shared.plans[vector].policy = Policy.FORWARD
        for vector in bits(forwarded & ~_ALWAYS_ASKED):
            self._shared.plans[vector].policy = Policy.RECORD

    def run(self, deadline: float | None) -> Outcome:
        """See `machine.Processor.run`."""
        if not self._handshake.running:
            if self._kicked:
                self._kicked = False
                return Outcome.KICKED
            if self._fresh and not self._isolated:
                bios.start(self._firmware, self.vmcb)
            self._fresh = False
            if self._quirks is not None:
                self._quirks.before_entry()
            self._enter()
        while True:
            outcome: Outcome | None = self._handshake.wait(deadline)
            if outcome is Outcome.OFF:
                self._ended()
            if outcome is Outcome.VMEXIT:
                outcome = self._sort_exit()
            if outcome is not None:
                return outcome
            self._enter()

    def _sort_exit(self) -> Outcome | None:
        """Return what the exit means to the hypervisor; None: it was handled here, and the guest is to go on."""
        if self._mailbox.reset:
            return self._begin()
        control = self.vmcb.control
        if control.exit_code == ExitCode.IOIO and not self._guarded():
            return None
        if self._quirks is not None and not self._quirks.after_exit():
            return None
        if control.exit_code != ExitCode.NMI:
            return Outcome.VMEXIT
        self._absorb_nmi()
        control.event_inj = 0
        if not self._kicked:
            return None
        self._kicked = False
        self._handshake.running = False
        return Outcome.KICKED

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """See `machine.Processor.cpuid`."""
        gprs = self.gprs
        kept = gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx
        gprs.rax, gprs.rcx = leaf, subleaf
        self._handshake.call(Command.CPUID)
        answer = gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx
        gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx = kept
        return answer

    def kick(self) -> None:
        """See `machine.Processor.kick`: an NMI that the monitor takes makes the guest leave."""
        self._kicked = True
        self._handshake.wake()

    def shutdown(self) -> None:
        """See `machine.Processor.shutdown`."""
        self._handshake.give(Command.SHUTDOWN)

    def close(self) -> None:
        """End QEMU and give the memory back."""
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
        if self._quirks is not None:
            self._quirks.entering()
        self._handshake.give(Command.LOAD_AND_RESUME)

    def _begin(self) -> Outcome:
        """The machine was switched on or reset: put everything of ours in order."""
        version = None if self._handshake.reported else self._qmp.version()
        if version is not None:
            check_version(version)
        if not self._mailbox.efer & EFER.SVME:
            raise ProcessorError("this QEMU's CPU does not enable SVM; QEMU 7.2 is known to work")
        self._mailbox.reset = 0
        self._mailbox.open_shadow = 0
        bios.restore(self._firmware, self.memory, self._block, self._mailbox)
        control = self.vmcb.control
        zero(control)
        control.msrpm_base_pa = BASE + MSRPM_AT
        control.iopm_base_pa = BASE + IOPM_AT
        control.asid = 1
        if self._isolated:
            nested.build(self._qemu.monitor, self._firmware)
            control.np_control, control.ncr3 = 1, nested.ROOT
        self._guard.reset()
        self._fresh = self._handshake.reported = True
        return Outcome.RESET

    def _guarded(self) -> bool:
        """Answer a guarded port; False: the guest can go on."""
        trapped = self._guard.answer()
        if self._guard.output is not None:
            self.gprs.rax = self._guard.output
            self._handshake.call(Command.OUT)
        return trapped

    def _absorb_nmi(self) -> None:
        assert self._quirks is not None, "only TCG's NMI exits come here"
        self._quirks.foreign_nmis = 0
        self._handshake.call(Command.ABSORB_NMI)

    def _on_wake(self) -> None:
        if self._kicked and self._quirks is not None:
            # Elsewhere NMIs are the guest's alone: the next exit will have to do.
            self._quirks.foreign_nmis = 1
            self._qmp.command("inject-nmi")

    def _ended(self) -> None:
        """QEMU is gone: tell how."""
        status = self._qemu.process.returncode
        if not self._handshake.reported:
            raise self._qemu.launch_error()
        if status < 0:
            raise ProcessorLost(f"QEMU was killed by {signal.Signals(-status).name}")
        if status == 1 and not any("isa-debug-exit" in word for word in self._qemu.command):
            raise ProcessorLost(f"QEMU failed: {self._qemu.errors() or 'it said nothing'}")
        self.exit_status = status or None
