"""Explains what a session's guest did. An error in an explanation costs that explanation alone."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from trapline.arch.events import DOUBLE_FAULT
from trapline.asm.disassembler import instruction
from trapline.explain.cpuid import CpuidAnswers
from trapline.explain.explanation import Explanation
from trapline.explain.tolerated import ask_about_cr4, refused_state, tolerated
from trapline.explain.undelivered import explain_undelivered
from trapline.hypervisor.stop import Stop, StopReason
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.processor import Processor
from trapline.report.crash import CrashContext
from trapline.report.result import Unreturned
from trapline.symbols import Names
from trapline.trace.exception_record import ExceptionRecord

from .ending import Moment, Seen, before_shutdown, chip_findings, in_double_fault_task, moment, unreturned_now
from .other_cpus import describe_others

_WARNINGS: Final = 16
"""How many places are remembered at which a real processor would have raised an exception."""


class Explainer:
    """Explains exceptions and shutdowns of a guest, and what its processor took that a real one does not."""

    def __init__(
        self, processor: Processor, current: Callable[[], Vcpu], seen: Seen, names: Names, syntax: str
    ) -> None:
        """`processor` is the boot CPU; `current` returns the CPU that the last stop is about."""
        self._current, self._seen, self._names, self._syntax = current, seen, names, syntax
        self._warnings: dict[str, None] = {}
        self._cpuid = CpuidAnswers(source=processor.cpuid)

    @property
    def unexplained(self) -> tuple[str, ...]:
        """Sentences on what could not be explained, because of errors in trapline."""
        return tuple(self._seen.unexplained.told)

    def begin(self) -> None:
        """Ask the CPU what `warnings` needs after the machine is gone."""
        ask_about_cr4(self._cpuid)

    def unreturned(self) -> frozenset[int]:
        """Return the numbers of the records of the exceptions that the stopped guest has not come back from."""
        return frozenset(record.seq for vcpu in self._current().cpus for record in self._unreturned(vcpu))

    def busiest(self, known: frozenset[int] | None) -> Vcpu:
        """Return the CPU of the stopped guest that there is most to tell of.

        That is one that has not come back from an exception, of those in `known` if given, or one that does not wait.
        """
        current = self._current()
        cpus = [current, *(each for each in current.cpus if each is not current and not each.waits)]
        if len(current.cpus) == 1:
            return current
        for vcpu in cpus:
            if any(known is None or record.seq in known for record in self._unreturned(vcpu)):
                return vcpu
        return next((vcpu for vcpu in cpus if not (vcpu.waits or vcpu.processor.halted)), current.cpus[0])

    def _unreturned(self, vcpu: Vcpu) -> list[ExceptionRecord]:
        return unreturned_now(vcpu, self._seen, self._names)

    def moment(self, crash: CrashContext, *, known: frozenset[int] | None, stuck: bool) -> Moment:
        """Return what there is to tell of the stopped guest: see `Session.moment`. Raises ProcessorError."""
        return moment(crash, self._current(), self._seen, self._names, self._syntax, known=known, stuck=stuck)

    def before_shutdown(self) -> tuple[Unreturned, ...]:
        """Return the first exception that a guest never came back from which shut down, if that is another.

        Raises ProcessorError.
        """
        return before_shutdown(self._current(), self._seen, self._names, self._syntax)

    def in_double_fault_task(self) -> tuple[Unreturned, ...]:
        """Return the #DF in whose task the guest ended, also after the machine is gone; empty: in none."""
        return in_double_fault_task(self._current(), self._seen, self._names, self._syntax)

    def machine_findings(self) -> tuple[str, ...]:
        """Return sentences on what the chips of the stopped guest show, and on its other CPUs."""
        others = self._seen.unexplained.guard(lambda: tuple(describe_others(self._current(), self._names)), ())
        return (*chip_findings(self._current().processor, self._seen), *others)

    def explanation(self, stop: Stop) -> Explanation | None:
        """Explain the shutdown, or the exception at which the guest is stopped; None: there is neither."""
        name, disassemble = self._names.text, partial(instruction, syntax=self._syntax)
        if stop.exit is None and stop.reason is not StopReason.SHUTDOWN:
            return None

        def explain() -> Explanation | None:
            if stop.exit is None or (stop.exit.synthesized and stop.exit.event is DOUBLE_FAULT):
                # Of a #DF the newest evidence is of the two that combined to it.
                return self._seen.black_box.explanation(name=name, disassemble=disassemble)
            event, address = stop.exit.event, stop.exit.address
            return explain_undelivered(self._current().processor, event, address, name=name, disassemble=disassemble)

        return self._seen.unexplained.guard(explain, None)

    def tolerate(self, vcpu: Vcpu) -> None:
        """Remember what a real processor refuses of the instruction at which a CPU is stopped."""
        if len(self._warnings) >= _WARNINGS:
            return
        disassemble = partial(instruction, syntax=self._syntax)
        told = self._seen.unexplained.guard(
            lambda: tolerated(vcpu.processor, name=self._names.text, disassemble=disassemble), None
        )
        if told is not None:
            self._warnings[told] = None

    def warnings(self) -> tuple[str, ...]:
        """Return sentences on what the guest did that a real processor refuses, also after the machine is gone."""
        return (*self._warnings, *self._seen.unexplained.guard(lambda: tuple(self._refused()), ()))

    def _refused(self) -> Iterator[str]:
        processor = self._current().processor
        return refused_state(processor.vmcb.save, self._cpuid, processor.capabilities.physical_bits)
