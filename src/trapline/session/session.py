"""A session: a guest on a processor under the hypervisor, with its recorder, symbols and explanations."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from trapline.errors import LaunchError, ProcessorError
from trapline.processors.qemu.launch import find_qemu, qemu_version

from .console import Console
from .opening import open_processor
from .output import open_output
from .settings import Outlets, Settings, choose_mask

if TYPE_CHECKING:
    from trapline.explain.explanation import Explanation
    from trapline.hypervisor.exception import InterceptedException
    from trapline.hypervisor.stop import Stop
    from trapline.machine.registers import Registers
    from trapline.report.crash import CrashContext
    from trapline.report.result import Count, Ending, Violation
    from trapline.report.run import Run

    from .cpu import Cpu
    from .observing import ExceptionExit

_GRACE: Final = 5.0
"""Seconds that a guest has to stop after its timeout."""


class Session:
    """A machine that was switched on. Close it, or use it as a context manager."""

    def __init__(self, settings: Settings, outlets: Outlets) -> None:
        """Switch the machine on; the guest does not run yet. Raises UsageError, LaunchError and GuestImageError."""
        self.settings, self.console = settings, Console(outlets.console)
        self.started = time.monotonic()
        mask = choose_mask(settings.exceptions)
        with contextlib.ExitStack() as undo:
            lines = undo.enter_context(open_output(outlets.output))
            opened = open_processor(undo, settings, self.console, outlets.inherited)
            self.processor, self.processor_name, self.choice, self.names, receive = opened
            if receive is not None:
                self.console.connect(lambda data: self._receive(receive, data))
            # Loaded only now, while QEMU starts.
            from trapline.explain.blackbox import BlackBox
            from trapline.hypervisor.recording import Recording
            from trapline.hypervisor.vm import Vm
            from trapline.trace.recorder import Recorder

            lookup = self.names.lookup if self.names.files or self.names.unplaced else None
            self.recorder = Recorder(lines=lines, live=outlets.live, lookup=lookup, keep=outlets.keep)
            self.processor.on_records(self.recorder.add)
            self.black_box = BlackBox(self.recorder.note if lines else None)
            self.vm = Vm(
                self.processor,
                mask=mask,
                reboots=settings.reboot,
                enter=None if self.choice.boot is None else self.choice.boot.enter,
                recorders=(Recording(self.recorder.add_one, (self.black_box,)),),
            )
            self._closing = undo.pop_all()

    def run(self, deadline: float | None = None) -> "Stop":
        """Run the guest until it stops; `deadline` is on the clock of `time.monotonic`."""
        return self._run(partial(self.vm.run, deadline))

    def step(self, deadline: float | None = None) -> "Stop":
        """Execute one instruction, or deliver one event."""
        return self._run(partial(self.vm.step, deadline))

    def halt(self) -> "Stop":
        """Stop a guest that its processor still runs after a timeout; return why it stopped.

        Raises ProcessorError where it cannot be stopped.
        """
        from trapline.hypervisor.stop import StopReason

        self.vm.interrupt()
        stop = self.vm.run(time.monotonic() + _GRACE)
        if stop.reason is StopReason.TIMEOUT:
            raise ProcessorError("the guest cannot be stopped: it blocks NMIs and causes no #VMEXIT")
        return stop

    @property
    def registers(self) -> "Registers":
        """The registers of the stopped guest."""
        from trapline.machine.registers import Registers

        return Registers(self.processor.vmcb.save, self.processor.gprs, lambda writes: None)

    def crash(self, explanation: "Explanation | None" = None) -> "CrashContext":
        """Return the context of the stopped guest."""
        from .crash import take
        from .kernel_slide import place

        place(self.processor, self.names)
        context = take(self.registers, self.processor.memory, self.names, self.settings.syntax)
        return context._replace(explanation=explanation)

    def cpu(self, check: "Callable[[bool], None]") -> "Cpu":
        """Return the guest's CPU; `check(writes)` raises UsageError while it cannot be accessed."""
        from .cpu import Cpu

        return Cpu(self.vm.vcpu, self.names, self.settings.syntax, check)

    def observed(self, cpu: "Cpu", reported: "InterceptedException") -> "ExceptionExit":
        """Return an intercepted exception for a user's callback."""
        from .observing import ExceptionExit

        return ExceptionExit(cpu, reported, self.recorder.tally.total)

    def explanation(self, stop: "Stop") -> "Explanation | None":
        """Explain the shutdown, or the exception at which the guest is stopped; None: there is neither."""
        from trapline.asm.disassembler import instruction
        from trapline.explain.undelivered import explain_undelivered
        from trapline.hypervisor.stop import StopReason

        name, disassemble = self.names.text, partial(instruction, syntax=self.settings.syntax)
        if stop.exit is not None:
            event, address = stop.exit.event, stop.exit.address
            return explain_undelivered(self.processor, event, address, name=name, disassemble=disassemble)
        if stop.reason is not StopReason.SHUTDOWN:
            return None
        return self.black_box.explanation(name=name, disassemble=disassemble)

    def set_exceptions(self, exceptions: str | int) -> None:
        """Change the forced exceptions, also of a running guest."""
        mask = choose_mask(exceptions)
        assert mask is not None, "only None asks the parameter"
        self.vm.set_exception_mask(mask)

    def result(
        self, stop: "Stop | None", error: BaseException | None = None, violations: "tuple[Violation, ...]" = ()
    ) -> "Run":
        """Return the result of a run that ended with a stop or an error."""
        from trapline.errors import TraplineError
        from trapline.hypervisor.stop import StopReason
        from trapline.report.result import Ending
        from trapline.report.run import Run

        from .kernel_slide import place

        ending = Ending.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Ending.FAILED
        explanation = crash = None
        if stop is not None:
            ending = _ending(stop, self.processor.exit_status, ruled=bool(violations))
            if stop.reason is not StopReason.OFF:
                place(self.processor, self.names)
            explanation = self.explanation(stop)
            crash = self.crash(explanation) if ending in (Ending.SHUTDOWN, Ending.RULE) else None
        statistics = self.processor.statistics
        failure = error if isinstance(error, TraplineError) else None
        return Run(
            ending=ending,
            detail=str(failure) if failure else stop.detail if stop is not None else "",
            processor=self.processor_name,
            why=self.choice.why,
            exit_status=self.processor.exit_status,
            seconds=time.monotonic() - self.started,
            recorded=self.recorder.tally.total,
            exits=statistics.exits,
            stopped_seconds=statistics.stopped,
            counts=self._counts(),
            exceptions=self.recorder.exceptions(),
            crash=crash,
            explanation=explanation,
            hints=tuple(self.processor.hints),
            violations=violations,
            unplaced=tuple(symbols.name for symbols in self.names.unplaced),
            console=self.console.output,
            error=failure,
        )

    def close(self) -> None:
        """Switch the machine off and release it. Safe to call twice."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, receive: Callable[[bytes], None], data: bytes) -> None:
        if not self.vm.call_while_stopped(lambda vcpu: receive(data)):
            receive(data)

    def _run(self, execute: Callable[[], "Stop"]) -> "Stop":
        from trapline.hypervisor.stop import StopReason

        from .kernel_slide import placing

        try:
            with placing(self.vm, self.names):
                while True:
                    stop = execute()
                    if stop.reason is not StopReason.SHUTDOWN:
                        return stop
                    self.black_box.shut_down(self.vm.vcpu)
                    if not self.vm.reboots:
                        return stop
                    self.processor.shutdown()
        except LaunchError:
            qemu_version(find_qemu(self.settings.qemu))  # raises a clearer error if the program is not QEMU
            raise

    def _counts(self) -> "tuple[Count, ...]":
        from trapline.arch.vectors import Vector
        from trapline.report.result import Count, Place
        from trapline.trace.exception_record import linear_rip

        def found(rip: int, cs_base: int) -> Place:
            address = linear_rip(rip, cs_base)
            return Place(rip, address, self.names.lookup(address))

        return tuple(
            Count(
                Vector(row.vector),
                row.count,
                found(row.first_rip, row.first_cs_base),
                found(row.last_rip, row.last_cs_base),
            )
            for row in self.recorder.tally.rows()
        )


def _ending(stop: "Stop", exit_status: int | None, *, ruled: bool) -> "Ending":
    from trapline.hypervisor.stop import StopReason
    from trapline.report.result import Ending

    if stop.reason is StopReason.EXCEPTION and ruled:
        return Ending.RULE
    if stop.reason is StopReason.OFF and exit_status is not None:
        return Ending.DEBUG_EXIT
    return Ending.__members__.get(stop.reason.name, Ending.STOPPED)
