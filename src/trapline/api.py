"""The library's interface: run a guest, or control a machine and decide about its exceptions.

    run = trapline.run("kernel.elf", exceptions="all", timeout=10)

    with trapline.Machine("kernel.elf") as m:
        @m.on(Vector.PF, where="cpl == 0")
        def fault(exc): ...
        stop = m.run(timeout=5)

The command line and the pytest plugin are built on it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO, Final, NamedTuple, Self, TypeVar, Unpack

from trapline.arch.vectors import Vector
from trapline.errors import ProcessorError, UsageError
from trapline.explain.explanation import Explanation
from trapline.hypervisor.exception import Decision, InterceptedException, Verdict, injection
from trapline.hypervisor.stop import Stop as Stopped
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.processor import Watchpoint
from trapline.report.crash import CrashContext
from trapline.report.run import Run
from trapline.session.cpu import Cpu, Memory
from trapline.session.dialogue import Dialogue
from trapline.session.observing import Callback, ExceptionExit, Handler, vectors_mask
from trapline.session.points import Breakpoints, Watchpoints
from trapline.session.result import result as session_result
from trapline.session.run import run_guest
from trapline.session.session import Session
from trapline.session.settings import MachineOptions, PathLike, listed, read_options
from trapline.session.symbols import resolve
from trapline.symbols import Symbol
from trapline.trace.condition import Condition, parse_stop
from trapline.trace.exceptions import Exceptions
from trapline.trace.rules import parse_expectation, parse_rule

FORWARD: Final = Verdict.FORWARD
"""Deliver the exception unchanged."""
DISCARD: Final = Verdict.DISCARD
"""Do not deliver it: the guest continues at RIP."""
STOP: Final = Verdict.STOP
"""Stop the guest before the exception is delivered; the next run delivers it."""
inject = injection

_ENDS: Final = frozenset({StopReason.OFF, StopReason.RESET, StopReason.SHUTDOWN})
"""After these there is nothing left to run."""
_C = TypeVar("_C", bound=Callback)
_W = TypeVar("_W")


class Stop(NamedTuple):
    """Why and where a machine stopped. It is valid until the guest runs."""

    machine: "Machine"
    """The machine that stopped."""
    stopped: Stopped
    """The hypervisor's reason, with details."""
    reason: StopReason
    """Why."""
    exception: ExceptionExit | None = None
    """For EXCEPTION: the exception, which is not delivered yet."""
    watchpoint: Watchpoint | None = None
    """For WATCHPOINT: the one that was hit."""

    def deliver(self, decision: Decision) -> None:
        """Decide what the next run does with the exception: FORWARD, DISCARD or `inject(...)`.

        Raises UsageError where the guest is not stopped at an exception, and for one that cannot be injected.
        """
        self.machine.session.vm.decide(decision)

    def explain(self) -> Explanation | None:
        """Explain the shutdown, or the exception at which the guest is stopped; None: there is neither."""
        return self.machine.session.explanation(self.stopped)

    @property
    def cpu(self) -> Cpu:
        """The CPU that stopped."""
        return self.machine.cpus[self.machine.session.vm.vcpu.number]

    @property
    def crash(self) -> CrashContext:
        """The context of the stopped guest: copies of registers, code, callers and stack."""
        return self.machine.session.crash(self.explain())


class Machine:
    """A guest on a processor, stopped or running in the thread that called `run`.

    The constructor switches it on; close it, or use it as a context manager.
    """

    def __init__(self, guest: PathLike | bytes | None = None, **options: Unpack[MachineOptions]) -> None:
        """Switch a machine on. The guest is a file, `sample:NAME`, code with `entry_mode`, or what QEMU's options boot.

        Raises UsageError, GuestImageError and LaunchError.
        """
        self._runner: int | None = None
        self._over: str | None = None
        """Why there is nothing left to run."""
        self._gone = False
        """Neither is there anything left to access."""
        self._lost: ProcessorError | None = None
        self._raised: Exception | None = None
        self._stopped: Stopped | None = None
        self._handlers: list[Handler] = []
        settings, outlets = read_options(guest, options)
        self.session = session = Session(settings, outlets)
        self.cpus: tuple[Cpu, ...] = session.cpus(self._check)
        """The CPUs of the guest, the boot CPU first."""
        self.memory: Memory = Memory(session.processor.memory, self._check)
        """Its physical memory."""
        self.breakpoints: Breakpoints = Breakpoints(self.resolve, partial(self._set, session.vm.set_breakpoints))
        """The instructions at which it stops."""
        self.watchpoints: Watchpoints = Watchpoints(self.resolve, partial(self._set, session.vm.set_watchpoints))
        """The memory at whose access it stops."""
        self.console: Dialogue = Dialogue(
            session.console,
            run=lambda timeout: self.run(timeout).reason.value,
            interrupt=self.interrupt,
            is_running=lambda: self._runner is not None,
        )
        """Its console, to be read and written."""

    def on(self, *vectors: Vector | int, where: str | None = None) -> Callable[[_C], _C]:
        """Call the decorated function for exceptions of these vectors, or of all, before the guest sees them.

        It gets an ExceptionExit and returns FORWARD, DISCARD, STOP, `inject(...)`, or None, which forwards. `where` is
        a condition (`docs/conditions.md`): only exceptions for which it holds are shown. Exceptions that are not
        intercepted are never shown. An error that the function raises is raised by `run`, with the guest stopped.
        Raises UsageError for a vector that may not be forced.
        """
        mask = vectors_mask(vectors)
        condition = None if where is None else Condition(where, live=True)

        def register(callback: _C) -> _C:
            handler = Handler(mask, callback, condition, self._see, self._callback_failed)
            self._handlers.append(handler)
            self.session.vm.observers.add(handler)
            return callback

        return register

    def off(self, callback: Callback) -> None:
        """Stop calling a function. Raises KeyError where it is not registered."""
        handler = next((handler for handler in self._handlers if handler.callback is callback), None)
        if handler is None:
            raise KeyError(callback)
        self._handlers.remove(handler)
        self.session.vm.observers.remove(handler)

    def run(self, timeout: float | None = None) -> Stop:
        """Run the guest in this thread until it stops, for `timeout` seconds at most.

        Raises what a callback raised, ProcessorError if the processor failed, and UsageError if the guest has ended.
        """
        return self._execute(self.session.run, timeout)

    def step(self, timeout: float | None = None) -> Stop:
        """Execute one instruction, or deliver one event: the guest then stops at the handler's first instruction.

        The guest cannot detect it. A step of HLT waits for an interrupt, at most `timeout` seconds.
        """
        return self._execute(self.session.step, timeout)

    def interrupt(self) -> None:
        """Make `run` return with INTERRUPTED; from any thread, or from a signal handler.

        If the guest is not running, the next `run` returns at once.
        """
        self.session.vm.interrupt()

    def set_exceptions(self, exceptions: str | int) -> None:
        """Change the forced exceptions, also of a running guest."""
        self.session.set_exceptions(exceptions)

    @property
    def exceptions(self) -> Exceptions:
        """The exceptions recorded so far, oldest first: the newest `keep` of them."""
        return self.session.recorder.exceptions()

    def lookup(self, address: int) -> Symbol | None:
        """Return the name of a linear address; None: no symbol covers it."""
        return self.session.names.lookup(address)

    def resolve(self, place: int | str) -> int:
        """Return the linear address of a place: an address as it is, or a symbol as `kmain` or `kmain+0x10`.

        Raises UsageError for a name that the symbols do not have.
        """
        return resolve(self.session.names, place)

    def result(self) -> Run:
        """Return what the machine did so far, as `run` returns it.

        Raises UsageError if the guest's state would be part of it and the machine is closed.
        """
        return session_result(self.session, None if self._lost else self._stopped, self._lost)

    def close(self) -> None:
        """Switch the machine off. Safe to call twice."""
        self._over, self._gone = "the machine is closed", True
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        if self._runner is not None:
            raise UsageError("the guest is running already")
        if self._over is not None:
            raise UsageError(f"the guest cannot run any more: {self._over}")
        self._runner = threading.get_ident()
        try:
            yield
        finally:
            self._runner = None

    def _execute(self, execute: Callable[[float | None], Stopped], timeout: float | None) -> Stop:
        with self._running():
            try:
                self._stopped = stopped = execute(None if timeout is None else time.monotonic() + timeout)
            except ProcessorError as lost:
                self._lost, self._over = lost, str(lost.args[0])
                raise
            reason = stopped.reason
            if reason is StopReason.TIMEOUT:
                halted = self.session.halt()
                if halted.reason is not StopReason.INTERRUPTED:
                    self._stopped, stopped, reason = halted, halted, halted.reason
            if reason in _ENDS:
                self._over, self._gone = reason.value, reason is not StopReason.SHUTDOWN
            if self._raised is not None:
                raised, self._raised = self._raised, None
                raise raised
            if reason is StopReason.FAILED:
                raise ProcessorError(stopped.detail)
        exception = None if stopped.exit is None else self._see(self.session.vm.vcpu, stopped.exit)
        return Stop(self, stopped, reason, exception, stopped.watchpoint)

    def _see(self, vcpu: Vcpu, reported: InterceptedException) -> ExceptionExit:
        return self.session.observed(self.cpus[vcpu.number], reported)

    def _callback_failed(self, error: Exception) -> None:
        self._raised = error

    def _check(self, writes: bool) -> None:
        """Raise UsageError where the guest cannot be accessed."""
        if self._runner not in (None, threading.get_ident()) and not self.session.is_running_here():
            raise UsageError("the guest is running; it can be accessed while it is stopped")
        if self._gone:
            raise UsageError(f"the guest cannot be accessed any more: {self._over}")

    def _set(self, change: Callable[[_W], None], wanted: _W) -> None:
        self._check(True)
        change(wanted)


def run(
    guest: PathLike | bytes | None = None,
    *,
    timeout: float | None = None,
    fail_on: Sequence[str] = (),
    expect: Sequence[str] = (),
    keep_going: bool = False,
    stop: Sequence[str] = (),
    inherit: IO[bytes] | None = None,
    **options: Unpack[MachineOptions],
) -> Run:
    """Run a guest until it ends, `timeout` seconds have passed, it is interrupted, or an exception or a rule stops it.

    `fail_on` are rules such as `kernel:gp,ud@copy_*`: an exception that one of them names ends the run, or with
    `keep_going` is reported at its end. `expect` are rules, each with or without `=COUNT`: what must be raised.
    `stop` are exceptions such as `pf if cpl == 0`, with a condition or without: the first ends the run undelivered.
    `inherit`, for QEMU: the guest's console is this process's standard input and that file, and the result lacks it.

    Errors before the guest runs are raised: UsageError, GuestImageError, LaunchError. What happens afterwards is part
    of the result, with all that was recorded: the ending FAILED has `error`.
    """
    settings, outlets = read_options(guest, options, inherit)
    return run_guest(
        settings,
        outlets,
        timeout=timeout,
        rules=[parse_rule(rule) for rule in listed(fail_on)],
        expectations=[parse_expectation(rule) for rule in listed(expect)],
        keep_going=keep_going,
        stops=[parse_stop(each) for each in listed(stop)],
    )
