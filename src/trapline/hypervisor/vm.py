"""The VM: its CPUs, its forced exceptions, its observers, and requests of other threads to its guest."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from trapline.arch.registers import Gprs
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector, bits
from trapline.arch.vmcb import SaveArea
from trapline.errors import UsageError
from trapline.machine.board import Board
from trapline.machine.linear import code_address
from trapline.machine.processor import Processor, Watchpoint

from . import board_loop, loop, step, step_delivery
from .delivery import check_decision
from .exception import Decision, InterceptedException
from .intercepts import recalc_intercepts
from .observers import Observers
from .parameters import checked, force_intercept_exceptions_mask
from .stop import Stop, StopReason
from .vcpu import Policy, Recorder, Vcpu

log = logging.getLogger(__name__)

_STOPPED: Final = Stop(StopReason.INTERRUPTED)
"""The answer that stops a detached guest in order to step it."""


class Vm:
    """A virtual machine: a processor, or all those of a board."""

    def __init__(
        self,
        processor: Processor,
        *,
        board: Board | None = None,
        mask: int | None = None,
        reboots: bool = False,
        enter: Callable[[SaveArea, Gprs], None] | None = None,
        recorders: tuple[Recorder, ...] = (),
        watched: int = 0,
        tolerated: Callable[[Vcpu], None] = lambda vcpu: None,
    ) -> None:
        """Force the exceptions in `mask`, by default those of the process-wide parameter.

        `processor` is the only CPU, or the boot CPU of `board`.
        `reboots`: a reset of the machine restarts the guest instead of ending the run. `enter` sets the state in which
        the guest starts after a reset, where no firmware does. `recorders` are called in order for each exception that
        the hypervisor handled: of the vectors in `watched` for each one, until `stop_watching`. `tolerated` is called
        at an instruction for which the manual has a #GP that the processor does not raise. Raises UsageError for a
        vector in `mask` that may not be forced; those of the parameter are left out with a warning.
        """
        self.processor = processor
        self.observers = Observers(self._observers_changed)
        allowed = self._allowed(force_intercept_exceptions_mask.snapshot() if mask is None else mask)
        ask = self.observers.ask if board is None else self._ask
        self._policy = Policy(allowed, 0, watched, ask, recorders, reboots, enter, tolerated)
        self._board = board
        processors = (processor,) if board is None else tuple(board.cpus)
        self.vcpus = tuple(Vcpu(each, number, self._policy) for number, each in enumerate(processors))
        """The CPUs, the boot CPU first."""
        for vcpu in self.vcpus:
            vcpu.cpus = self.vcpus
        self.vcpu = self.vcpus[0]
        """The CPU that the last stop is about, and the one that `step` steps."""
        self._requested = threading.Condition()
        self._wanted: Policy | None = None
        self._runner: int | None = None
        self._detached = False
        self._interrupted = False
        self._callbacks = deque[Callable[[Vcpu], None]]()

    @property
    def mask(self) -> int:
        """The forced exceptions."""
        return self._policy.mask

    @property
    def reboots(self) -> bool:
        """Whether a reset of the machine restarts the guest."""
        return self._policy.reboots

    def run(self, deadline: float | None = None) -> Stop:
        """Run the guest until it stops; `deadline` is on the clock of `time.monotonic`."""
        return self._hold(self._run, deadline)

    def step(self, deadline: float | None = None) -> Stop:
        """Execute one instruction of `vcpu` or deliver one event; `deadline` limits how long a HLT waits.

        Other CPUs stand still meanwhile. Raises UsageError for a CPU that waits for a startup IPI.
        The reason is STEP unless something else ended it: see `hypervisor.step`.
        """
        if self.vcpu.waits:
            raise UsageError(f"CPU {self.vcpu.number} waits for a startup IPI: there is nothing to step")
        return self._hold(self._step, deadline)

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """Stop `run` with BREAKPOINT before the instruction at one of these linear addresses.

        A run that begins at a breakpoint executes its instruction first. Only while the guest is stopped. Raises
        UsageError where the processor has no breakpoints.
        """
        for vcpu in self.vcpus:
            if not vcpu.stepping:
                step_delivery.insert(vcpu, addresses)
            vcpu.breakpoints = addresses

    def set_watchpoints(self, watched: tuple[Watchpoint, ...]) -> None:
        """Stop `run` and `step` with WATCHPOINT after an instruction that accessed any of these bytes.

        Only while the guest is stopped. Raises UsageError where the processor has no watchpoints.
        """
        for vcpu in self.vcpus:
            vcpu.processor.set_watchpoints(watched)

    def decide(self, decision: Decision) -> None:
        """Decide what the next run does with the exception at which the guest is stopped.

        Raises UsageError where it is not stopped at an exception, and for one that cannot be injected.
        """
        undelivered = self.vcpu.undelivered
        if undelivered is None:
            raise UsageError("the guest is not stopped at an exception")
        self.vcpu.undelivered = undelivered._replace(decision=check_decision(self.vcpu, decision))

    def set_exception_mask(self, mask: int) -> None:
        """Change the forced exceptions, also of a running guest: it is stopped for the change.

        Returns when the change has taken effect: at once when an observer calls this, or the guest is stopped. After a
        deadline, which ends `run` but does not stop the guest, the change takes effect in the next `run`.
        """
        allowed = self._allowed(mask)
        with self._requested:
            self._want((self._wanted or self._policy)._replace(mask=allowed))

    def stop_watching(self, vectors: int) -> None:
        """Let the processor forward exceptions by itself, unless observers are asked about them.

        For recorders, while they are called.
        """
        with self._requested:
            policy = self._wanted or self._policy
            self._want(policy._replace(watched=policy.watched & ~vectors))

    def call_while_stopped(self, callback: Callable[[Vcpu], None]) -> bool:
        """Stop a running guest for a call, after earlier ones. Returns at once; False: the guest is not running."""
        with self._requested:
            if self._runner is None:
                return False
            self._callbacks.append(callback)
            self.processor.kick()
            return True

    def interrupt(self) -> None:
        """Make `run` return with INTERRUPTED and the guest stopped; from any thread or a signal handler.

        If the guest is not running, the next `run` returns at once.
        """
        self._interrupted = True
        self.processor.kick()

    def forget_interrupt(self) -> None:
        """Let the next `run` run, although the last one ended otherwise when it was interrupted."""
        self._interrupted = False

    def abandon(self) -> None:
        """Take note that the thread that ran the guest never returns."""
        with self._requested:
            self._runner = None
            self._callbacks.clear()
            self._requested.notify_all()

    def _hold(self, execute: Callable[[float | None], tuple[Stop, bool]], deadline: float | None) -> Stop:
        """Run the guest in this thread; `execute` returns why it stopped, and whether the processor still runs it."""
        with self._requested:
            self._runner = threading.get_ident()
        detached = False
        try:
            stop, detached = execute(deadline)
            self.vcpu.stopped_at = None if detached else code_address(self.vcpu.save)
            return stop
        finally:
            with self._requested:
                self._runner, self._detached = None, detached
                try:
                    if not detached:
                        self._take_wanted()
                finally:
                    self._requested.notify_all()

    def _run(self, deadline: float | None) -> tuple[Stop, bool]:
        if self.vcpu.resets and not self._detached:
            for vcpu in self.vcpus:
                stop = step.begin_run(vcpu, deadline, self._service_requests, steps=vcpu is self.vcpu)
                if stop is not None:
                    self.vcpu = vcpu
                    return stop, False
        stop = self._loop(deadline, self._service_requests)
        # After a deadline the processor may still run the guest: the VMCB is not valid until it is stopped.
        return stop, stop.reason is StopReason.TIMEOUT

    def _loop(self, deadline: float | None, kicked: Callable[[], Stop | None]) -> Stop:
        if self._board is None:
            return loop.run(self.vcpu, deadline, kicked)

        def kicked_on(vcpu: Vcpu) -> Stop | None:
            self.vcpu = vcpu
            return kicked()

        self.vcpu, stop = board_loop.run(self._board, self.vcpus, deadline, kicked_on)
        return stop

    def pause(self) -> None:
        """Return when no CPU executes any more: for observers, which are called while others execute."""
        if self._board is not None:
            self._board.pause()

    def _step(self, deadline: float | None) -> tuple[Stop, bool]:
        stop = self._stop_detached() or step.step(self.vcpu, deadline, self._service_requests)
        if stop.reason is StopReason.HALTED and len(self.vcpus) > 1:
            stop = Stop(StopReason.STEP, f"CPU {self.vcpu.number} waits in a HLT, which another CPU may end")
        return stop, False

    def _stop_detached(self) -> Stop | None:
        """Stop a guest that the processor still runs after a deadline; a Stop: it stopped otherwise."""
        if not self._detached:
            return None
        self.processor.kick()
        stop = self._loop(None, lambda: self._service_requests() or _STOPPED)
        return None if stop is _STOPPED else stop

    def _ask(self, vcpu: Vcpu, exit: InterceptedException) -> Decision:
        """Ask the observers about an exception of one of several CPUs."""
        self.vcpu = vcpu
        return self.observers.ask(vcpu, exit)

    def _service_requests(self) -> Stop | None:
        """Do what other threads requested."""
        while self._callbacks:
            self._callbacks.popleft()(self.vcpu)
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
            self.pause()
            for vcpu in self.vcpus:
                vcpu.policy = self._policy
                if vcpu.resets:  # otherwise the first reset calculates the intercepts
                    recalc_intercepts(vcpu)

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
