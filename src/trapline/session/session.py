"""A session: a guest on a processor under the hypervisor, with its recorder, symbols and explanations."""

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from trapline.arch.registers import Gprs
from trapline.arch.vectors import FORCEABLE
from trapline.arch.vmcb import SaveArea
from trapline.errors import ProcessorError, ProcessorLost, UsageError
from trapline.explain.explanation import Explanation
from trapline.explain.unexplained import Unexplained
from trapline.hypervisor.exception import InterceptedException
from trapline.hypervisor.stop import Stop, StopReason
from trapline.machine.registers import Check, Registers, unchecked
from trapline.report.crash import CrashContext
from trapline.report.result import Unreturned
from trapline.signals import InterruptLater
from trapline.trace.condition import Condition

from .console import Console
from .cpu import Cpu
from .crash import crash_context
from .ending import Moment, Seen, note_evidence
from .explaining import Explainer
from .observing import ExceptionExit
from .opening import blaming, open_processor
from .output import LineWriter
from .outputs import OutputFiles
from .placing import Placer
from .settings import UNICORN, Outlets, Settings, choose_mask

if TYPE_CHECKING:
    from trapline.hypervisor.vcpu import Vcpu
    from trapline.processors.unicorn.crash_guard import CrashGuard

_READER: Final = 2.0
"""Seconds that the reader of the console has after the timeout, or after Ctrl-C."""
_GRACE: Final = 5.0
"""Seconds that a guest has to stop after its timeout, or after Ctrl-C."""


class Session:
    """A machine that was switched on. Close it, or use it as a context manager."""

    def __init__(self, settings: Settings, outlets: Outlets) -> None:
        """Switch the machine on; the guest does not run yet. Raises UsageError, LaunchError and GuestImageError."""
        self.settings, self._sink = settings, outlets.console
        sink = self._sink
        self.console = Console(None if isinstance(sink, str | os.PathLike) else sink)
        self.started = time.monotonic()
        mask = choose_mask(settings.exceptions)
        self.registers = outlets.registers
        self.where = None if outlets.where is None else Condition(outlets.where)
        with contextlib.ExitStack() as undo:
            self._files = undo.enter_context(OutputFiles(settings, outlets))
            opened = open_processor(undo, settings, self.console, outlets.inherited)
            self.processor, self.processor_name, self.why, self._boot, self.names = opened[:5]
            self.description, receive, board, images, self.rest = opened[5:]
            self._placer = Placer(self.names, images)
            if receive is not None:
                self.console.connect(lambda data: self._receive(receive, data))
            # Loaded only now, while QEMU starts.
            from trapline.explain.blackbox import BlackBox
            from trapline.explain.first_exceptions import FirstExceptions
            from trapline.hypervisor.recording import Recording
            from trapline.hypervisor.vm import Vm
            from trapline.trace.recorder import Recorder

            lookup = self.names.lookup if self.names.files or self.names.unplaced or images else None
            output = self._files.open(lookup)
            self.recorder = Recorder(
                output=output,
                live=outlets.live,
                lookup=lookup,
                keep=outlets.keep,
                where=self.where,
                tally=outlets.tally,
                hurry=self._hurry,
                wait=self._placer.is_trying,
            )
            self.processor.on_records(self.recorder.add)
            note = partial(note_evidence, self.recorder, images)
            self.black_box = BlackBox(note if output else None)
            first_exceptions = FirstExceptions(
                lambda: self.recorder.store.newest(1), lambda vectors: self.vm.stop_watching(vectors)
            )
            seen = Seen(self.recorder, note, self.black_box, first_exceptions, Unexplained())
            self.explainer = Explainer(self.processor, lambda: self.vm.vcpu, seen, self.names, settings.syntax)
            self.vm = Vm(
                self.processor,
                board=board,
                mask=mask,
                reboots=settings.reboot,
                enter=self._enter,
                recorders=(
                    *((self._placer.before_record,) if self._placer.waits else ()),
                    Recording(self.recorder.add_one, (self.black_box, first_exceptions)),
                ),
                watched=FORCEABLE,
                tolerated=lambda vcpu: self.explainer.tolerate(vcpu),
            )
            self.console.interrupt = self.vm.interrupt
            self._guard = self._crash_guard() if settings.survive_crashes and self.processor_name == UNICORN else None
            self._closed = self.crashed = False
            """The processor crashed. The VMCB has the guest's state at the beginning of the block that was executed."""
            self.forced = self.vm.mask
            """The exceptions that were forced at any time."""
            self.departure: Moment | None = None
            """The guest just before it ended or reset its machine, the last time."""
            self._files.describe(self)
            self._closing = undo.pop_all()

    def run(self, deadline: float | None = None) -> Stop:
        """Run the guest until it stops; `deadline` is on the clock of `time.monotonic`."""
        self._wait_for_reader(deadline)
        return self._execute(partial(self._run, partial(self.vm.run, deadline)))

    def step(self, deadline: float | None = None) -> Stop:
        """Execute one instruction, or deliver one event."""
        self._wait_for_reader(deadline)
        return self._execute(partial(self._run, partial(self.vm.step, deadline)))

    def halt(self) -> Stop:
        """Stop a guest that its processor still runs after a timeout; return why it stopped.

        Raises ProcessorError where it cannot be stopped.
        """
        self.vm.interrupt()
        stop = self._execute(partial(self._run, partial(self.vm.run, time.monotonic() + _GRACE)))
        if stop.reason is StopReason.TIMEOUT:
            raise ProcessorError("the guest cannot be stopped: it blocks NMIs and causes no #VMEXIT")
        return stop

    def is_running_here(self) -> bool:
        """Return whether the calling thread is one of the session's own that runs the guest."""
        return self._guard is not None and self._guard.is_running_here()

    def crash(self, explanation: Explanation | None = None) -> CrashContext:
        """Return the context of the stopped guest. Raises UsageError where the machine is closed."""
        self._check_open()
        self.place_symbols()
        vcpu, processor = self.vm.vcpu, self.vm.vcpu.processor
        registers = Registers(vcpu.save, processor.gprs, unchecked)
        context = crash_context(registers, processor.memory, self.names, self.settings.syntax)
        number = vcpu.number if len(vcpu.cpus) > 1 else None
        return context._replace(explanation=explanation, halted=processor.halted, cpu=number)

    def cpus(self, check: Check = unchecked) -> tuple[Cpu, ...]:
        """Return the guest's CPUs; `check(writes)` raises UsageError while they cannot be accessed."""
        return tuple(
            Cpu(vcpu, self.names, self.settings.syntax, partial(self._check_cpu, check, vcpu)) for vcpu in self.vm.vcpus
        )

    def observed(self, cpu: Cpu, reported: InterceptedException) -> ExceptionExit:
        """Return an intercepted exception for a user's callback."""
        return ExceptionExit(cpu, reported, self.recorder.tally.total)

    def place_symbols(self) -> None:
        """Place the symbols of what the stopped guest runs, if their place is unknown."""
        self._placer.place(self.vm.vcpu.processor)

    def moment(
        self, known: frozenset[int] | None = None, *, stuck: bool = False, outside: bool = False
    ) -> Moment | None:
        """Return what there is to tell of the stopped guest, where it ended otherwise than by its own success.

        `known` limits the exceptions that it never came back from to the records with these numbers. `stuck`: it waits
        in a HLT that nothing can end. `outside`: it was stopped from outside, and any of its CPUs may tell more than
        another. None: its processor is lost.
        """
        try:
            if outside:
                self.vm.vcpu = self.explainer.busiest(known)
            return self.explainer.moment(self.crash(), known=known, stuck=stuck)
        except ProcessorError:
            return None

    def before_shutdown(self) -> tuple[Unreturned, ...]:
        """Return the first exception that a guest never came back from which shut down, if that is another."""
        try:
            return self.explainer.before_shutdown()
        except ProcessorError:
            return ()

    def explanation(self, stop: Stop) -> Explanation | None:
        """Explain the shutdown, or the exception at which the guest is stopped; None: there is neither."""
        if stop.exit is not None:
            self._check_open()
        return self.explainer.explanation(stop)

    def set_exceptions(self, exceptions: str | int) -> None:
        """Change the forced exceptions, also of a running guest."""
        mask = choose_mask(exceptions)
        assert mask is not None, "only None asks the parameter"
        self.vm.set_exception_mask(mask)
        self.forced |= self.vm.mask

    def close(self) -> None:
        """Switch the machine off and release it. Safe to call twice."""
        self._closed = True
        self._closing.close()
        self.console.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enter(self, save: SaveArea, gprs: Gprs) -> None:
        """Begin the run's files, for the processor has started, and set the state in which the guest does."""
        self._files.begin(self.console, self.processor)
        self.explainer.begin()
        if self._boot is not None:
            self._boot.enter(save, gprs)

    def _receive(self, receive: Callable[[bytes], None], data: bytes) -> None:
        if not self.vm.call_while_stopped(lambda vcpu: receive(data)):
            receive(data)

    def _check_cpu(self, check: Check, vcpu: "Vcpu", writes: bool) -> None:
        """Check an access; a callback is called while other CPUs than the one that it is about may execute."""
        check(writes)
        if vcpu is not self.vm.vcpu:
            self.vm.pause()

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the machine is closed: the guest's state is gone with it")

    def _crash_guard(self) -> "CrashGuard":
        from trapline.processors.unicorn.crash_guard import CrashGuard
        from trapline.processors.unicorn.one_cpu import OneCpu

        assert isinstance(self.processor, OneCpu)
        return CrashGuard(self.processor, self._place)

    def _place(self) -> str:
        """Return where the guest is, with the instruction, for a message."""
        assert self._guard is not None, "it asks"
        cpu = self.cpus()[self._guard.executing]
        address = f"{cpu.registers.cs.selector:04x}:{cpu.registers.rip:x}"
        place = address if (symbol := cpu.symbol) is None else f"{address} {symbol}"
        return next((f"{place}, which begins with {line.text}" for line in cpu.disassemble()), place)

    def _wait_for_reader(self, deadline: float | None) -> None:
        """Let a run wait for the reader of its records, until a deadline."""
        if self._files.stream is not None:
            self._files.stream.begin(deadline)
        self._wait_for_console(None if deadline is None else deadline + _READER)

    def _hurry(self) -> None:
        if self._files.stream is not None:
            self._files.stream.hurry()
        self._wait_for_console(time.monotonic() + _READER)

    def _wait_for_console(self, limit: float | None) -> None:
        self._files.wait_for_console(limit)
        if isinstance(self._sink, LineWriter):
            self._sink.wait_until(limit)

    def _interrupt(self) -> None:
        self._hurry()
        self.vm.interrupt()

    def _execute(self, execute: Callable[[], Stop]) -> Stop:
        if self._guard is None:
            try:
                with InterruptLater(self._interrupt, _GRACE):
                    return execute()
            except KeyboardInterrupt:
                self.vm.forget_interrupt()
                raise
        try:
            return self._guard.run(execute, self._interrupt)
        except ProcessorLost:
            self.crashed = True
            self.vm.vcpu = self.vm.vcpus[self._guard.executing]
            self.vm.abandon()
            raise

    def _run(self, execute: Callable[[], Stop]) -> Stop:
        with blaming(self.settings), self._placer.placing(self.vm, self.recorder.release):
            while True:
                stop = execute()
                self.recorder.release()
                self.console.check()
                if stop.reason is StopReason.LEAVING:
                    self.departure = self.moment()
                    continue
                if stop.reason is not StopReason.SHUTDOWN:
                    return stop
                self.black_box.shut_down(self.vm.vcpu)
                if not self.vm.reboots:
                    return stop
                self.processor.shutdown()
