"""The VM: its mask of forced exceptions, and what the VMCB intercepts because of it."""

import logging
import threading
from collections.abc import Callable

from trapline.arch import msr
from trapline.arch.events import Event, Shutdown
from trapline.arch.exits import ExitCode, set_intercept
from trapline.arch.registers import Gprs
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector, bits
from trapline.arch.vmcb import SaveArea
from trapline.errors import UsageError
from trapline.machine.processor import Processor

from .observers import ExceptionExit, Observers
from .parameters import checked, force_intercept_exceptions_mask
from .stop import Reason, Stop
from .vcpu import Vcpu

log = logging.getLogger(__name__)

Recorder = Callable[[Vcpu, ExceptionExit, Event | Shutdown | None], None]

_ALWAYS = (
    ExitCode.SHUTDOWN,
    ExitCode.MSR,
    ExitCode.VMRUN,
    ExitCode.VMMCALL,
    ExitCode.VMLOAD,
    ExitCode.VMSAVE,
    ExitCode.STGI,
    ExitCode.CLGI,
    ExitCode.SKINIT,
    ExitCode.INVLPGA,
)
"""A guest without SVM must not see, use or break ours."""


class Vm:
    """A virtual machine with one vCPU."""

    def __init__(
        self,
        processor: Processor,
        *,
        mask: int | None = None,
        reboots: bool = False,
        enter: Callable[[SaveArea, Gprs], None] | None = None,
    ) -> None:
        """Take a snapshot of the forced exceptions: `mask`, or else the process-wide parameter.

        `reboots`: a reset of the machine starts the guest again instead of ending the run. `enter` changes the
        state after each reset to that in which the guest begins, where no firmware does. A vector in `mask`
        that may not be forced is a UsageError; the parameter's are dropped with a warning.
        """
        self.processor = processor
        self.reboots = reboots
        self.enter = enter
        self.recorder: Recorder | None = None
        """Called with each exception that the hypervisor handled and what the guest gets; None: it was discarded."""
        self.mask = self._allowed(force_intercept_exceptions_mask.snapshot() if mask is None else mask)
        self.observers = Observers(self._observers_changed)
        self.vcpu = Vcpu(self, processor, 0)
        self._wanted: int | None = None
        self._settled = threading.Condition()
        self._runner: int | None = None
        self._at_large = False
        self._looks: list[Callable[[Vcpu], None]] = []

    def run(self, deadline: float | None = None) -> Stop:
        """Run the guest until something stops it; `deadline` is on the clock of `time.monotonic`."""
        stop = None
        with self._settled:
            self._runner = threading.get_ident()
        try:
            stop = self.vcpu.run(deadline)
            return stop
        finally:
            with self._settled:
                self._runner = None
                # After a deadline the guest may go on by itself: its VMCB is not ours until it is stopped.
                self._at_large = stop is not None and stop.reason is Reason.DEADLINE
                if not self._at_large:
                    self._take_wanted()
                self._settled.notify_all()

    def set_exception_mask(self, mask: int) -> None:
        """Change the forced exceptions of a running guest: stop every vCPU, change, go on.

        Returns when the change is in force: at once when an observer asks or the guest is stopped. After a
        deadline, which stops the waiting but not the guest, `run` begins with the change.
        """
        self._want(self._allowed(mask))

    def look(self, look: Callable[[Vcpu], None]) -> None:
        """Stop a running guest, let `look` see it, and let it go on. Returns at once; does nothing where none runs."""
        with self._settled:
            if self._runner is not None:
                self._looks.append(look)
                self.processor.kick()

    def settle(self) -> None:
        """Do what the vCPU was stopped for."""
        while self._looks:
            self._looks.pop()(self.vcpu)
        with self._settled:
            self._take_wanted()
            self._settled.notify_all()

    def recalc_intercepts(self, vcpu: Vcpu) -> None:
        """Derive what the VMCB intercepts from what is forced and what is always needed: the one place."""
        control = vcpu.processor.vmcb.control
        capabilities = vcpu.processor.capabilities
        control.intercept_cr = control.intercept_dr = control.intercept_misc3 = 0
        control.intercept_misc1 = control.intercept_misc2 = 0
        control.intercept_exceptions = self.mask
        for code in _ALWAYS:
            set_intercept(control, code)
        if not capabilities.hides_svm:
            set_intercept(control, ExitCode.CPUID)
        for number in (msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR):
            writes = number != msr.EFER or not capabilities.keeps_svme
            _guard(vcpu.processor.msrpm, number, writes=writes)
        vcpu.processor.intercepts_changed(self.mask & ~self.observers.vectors)

    def _want(self, mask: int) -> None:
        with self._settled:
            self._wanted = mask
            if self._runner == threading.get_ident() or (self._runner is None and not self._at_large):
                self._take_wanted()
                return
            self.processor.kick()
            self._settled.wait_for(lambda: self._wanted is None or self._runner is None)

    def _take_wanted(self) -> None:
        if self._wanted is not None:
            self.mask, self._wanted = self._wanted, None
            if self.vcpu.resets:  # the first reset derives the intercepts by itself
                self.recalc_intercepts(self.vcpu)

    def _observers_changed(self) -> None:
        with self._settled:
            self._want(self.mask if self._wanted is None else self._wanted)

    def _allowed(self, mask: int) -> int:
        for vector in bits(checked(mask) & ~FORCEABLE):
            row = VECTORS[vector]
            raise UsageError(f"{row.mnemonic} (vector {vector}) cannot be forced: {row.refused}")
        if mask >> Vector.TS & 1 and not self.processor.capabilities.ts_error_code:
            log.warning("#TS is not intercepted: %s gives no error code for it", self.processor.capabilities.name)
            mask &= ~(1 << Vector.TS)
        return mask


def _guard(msrpm: memoryview, number: int, *, writes: bool) -> None:
    bit = msr.msrpm_bit(number)
    assert bit is not None, f"MSR {number:#x} is outside the permission map"
    msrpm[bit // 8] |= (0b11 if writes else 0b01) << bit % 8
