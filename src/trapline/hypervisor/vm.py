"""The VM: its forced exceptions, its observers, and the way other threads reach its guest."""

import logging
import threading
from collections.abc import Callable

from trapline.arch.registers import Gprs
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector, bits
from trapline.arch.vmcb import SaveArea
from trapline.errors import UsageError
from trapline.machine.processor import Processor

from . import loop
from .delivery import check_injection
from .exception import Decision, Injection
from .intercepts import recalc_intercepts
from .observers import Observers
from .parameters import checked, force_intercept_exceptions_mask
from .stop import Stop, StopReason
from .vcpu import Policy, Recorder, Vcpu

log = logging.getLogger(__name__)


class Vm:
    """A virtual machine with one vCPU."""

    def __init__(
        self,
        processor: Processor,
        *,
        mask: int | None = None,
        reboots: bool = False,
        enter: Callable[[SaveArea, Gprs], None] | None = None,
        recorders: tuple[Recorder, ...] = (),
    ) -> None:
        """Take a snapshot of the forced exceptions: `mask`, or else the process-wide parameter.

        `reboots`: a reset of the machine starts the guest again instead of ending the run. `enter` changes the
        state after each reset to that in which the guest begins, where no firmware does. `recorders` see, in order,
        each exception that the hypervisor handled and what the guest gets. A vector in `mask` that may not be forced
        is a UsageError; the parameter's are dropped with a warning.
        """
        self.processor = processor
        self.observers = Observers(self._observers_changed)
        allowed = self._allowed(force_intercept_exceptions_mask.snapshot() if mask is None else mask)
        self._policy = Policy(allowed, 0, self.observers.ask, recorders, reboots, enter)
        self.vcpu = Vcpu(processor, 0, self._policy)
        self._requested = threading.Condition()
        self._wanted: Policy | None = None
        self._runner: int | None = None
        self._detached = False
        self._interrupted = False
        self._callbacks: list[Callable[[Vcpu], None]] = []

    @property
    def mask(self) -> int:
        """The forced exceptions that are in force."""
        return self.vcpu.policy.mask

    @property
    def reboots(self) -> bool:
        """Whether a reset of the machine starts the guest again."""
        return self.vcpu.policy.reboots

    def run(self, deadline: float | None = None) -> Stop:
        """Run the guest until something stops it; `deadline` is on the clock of `time.monotonic`."""
        stop = None
        with self._requested:
            self._runner = threading.get_ident()
        try:
            stop = loop.run(self.vcpu, deadline, self._service_requests)
            return stop
        finally:
            with self._requested:
                self._runner = None
                # After a deadline the guest may go on by itself: its VMCB is not ours until it is stopped.
                self._detached = stop is not None and stop.reason is StopReason.TIMEOUT
                if not self._detached:
                    self._take_wanted()
                self._requested.notify_all()

    def decide(self, decision: Decision) -> None:
        """Decide about the exception that the guest is stopped at, for when it runs on.

        Raises UsageError where it is stopped at none, and for an exception that cannot be injected.
        """
        undelivered = self.vcpu.undelivered
        if undelivered is None:
            raise UsageError("the guest is not stopped at an exception")
        if isinstance(decision, Injection):
            check_injection(self.vcpu, decision)
        self.vcpu.undelivered = undelivered._replace(decision=decision)

    def set_exception_mask(self, mask: int) -> None:
        """Change the forced exceptions of a running guest: stop every vCPU, change, go on.

        Returns when the change is in force: at once when an observer asks or the guest is stopped. After a
        deadline, which stops the waiting but not the guest, `run` begins with the change.
        """
        allowed = self._allowed(mask)
        with self._requested:
            self._want((self._wanted or self._policy)._replace(mask=allowed))

    def call_while_stopped(self, callback: Callable[[Vcpu], None]) -> bool:
        """Stop a running guest, call back, and let it go on. Returns at once; False: none runs."""
        with self._requested:
            if self._runner is None:
                return False
            self._callbacks.append(callback)
            self.processor.kick()
            return True

    def interrupt(self) -> None:
        """Make `run` return with INTERRUPTED and the guest stopped; from any thread or a signal handler.

        Where the guest does not run, the next `run` returns at once.
        """
        self._interrupted = True
        self.processor.kick()

    def _service_requests(self) -> Stop | None:
        """Do what the guest was stopped for."""
        while self._callbacks:
            self._callbacks.pop()(self.vcpu)
        with self._requested:
            self._take_wanted()
            self._requested.notify_all()
        if not self._interrupted:
            return None
        self._interrupted = False
        return Stop(StopReason.INTERRUPTED)

    def _want(self, policy: Policy) -> None:
        self._wanted = policy
        if self._runner == threading.get_ident() or (self._runner is None and not self._detached):
            self._take_wanted()
            return
        self.processor.kick()
        self._requested.wait_for(lambda: self._wanted is None or self._runner is None)

    def _take_wanted(self) -> None:
        if self._wanted is not None:
            self._policy, self._wanted = self._wanted, None
            self.vcpu.policy = self._policy
            if self.vcpu.resets:  # the first reset derives the intercepts by itself
                recalc_intercepts(self.vcpu)

    def _observers_changed(self) -> None:
        with self._requested:
            self._want((self._wanted or self._policy)._replace(decided=self.observers.vectors))

    def _allowed(self, mask: int) -> int:
        for vector in bits(checked(mask) & ~FORCEABLE):
            row = VECTORS[vector]
            raise UsageError(f"{row.mnemonic} (vector {vector}) cannot be forced: {row.refused}")
        if mask >> Vector.TS & 1 and not self.processor.capabilities.ts_error_code:
            log.warning("#TS is not intercepted: %s gives no error code for it", self.processor.capabilities.name)
            mask &= ~(1 << Vector.TS)
        return mask
