"""One machine as every debugger sees it: stopped, run, stepped, and stopped again at what was asked for."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.api import DISCARD, FORWARD, STOP, Machine, Stop
from trapline.arch.vectors import Vector, bits
from trapline.errors import UsageError
from trapline.explain.explanation import Explanation
from trapline.hypervisor.exception import Decision
from trapline.hypervisor.stop import StopReason
from trapline.machine.linear import next_rip
from trapline.report.crash import Frame
from trapline.session.cpu import Cpu
from trapline.session.observing import ExceptionExit
from trapline.session.stops import check_forced
from trapline.trace.condition import StopAt, parse_stop

FINAL: Final = frozenset({StopReason.OFF, StopReason.RESET, StopReason.SHUTDOWN, StopReason.HALTED})
"""After these the guest does not go on by itself."""
_CALLS: Final = frozenset({"call", "lcall", "syscall", "sysenter", "int", "int1", "int3", "into"})


class Catch(NamedTuple):
    """Exceptions at which the guest stops before it sees them."""

    number: int
    """From 1; a number is never used again."""
    at: StopAt

    def __str__(self) -> str:
        return f"{self.number}: {self.at.text}"


class Target:
    """A machine that a debugger holds. It is stopped, or runs in the thread that called a method that runs it."""

    def __init__(self, machine: Machine) -> None:
        """Stop the machine at the first instruction that it executes. Raises ProcessorError."""
        self.machine = machine
        self.passed = 0
        """A mask of vectors that are delivered without a stop, whatever is caught."""
        self.passes: Callable[[], bool] = lambda: False
        """Is asked at each breakpoint: whether the guest goes on there, as where a condition does not hold."""
        self._catches: dict[Catch, Callable[[ExceptionExit], Decision | None]] = {}
        self._numbers = 0
        self._selected: int | None = None
        """The number of the CPU that is looked at; None: the one that stopped."""
        self._fpu: bytes | None = None
        """As it was read since the guest stopped."""
        machine.interrupt()
        self.stop: Stop = machine.run()
        """Why and where the machine stopped last."""

    @property
    def cpu(self) -> Cpu:
        """The CPU that is looked at, and stepped: the one that stopped, or another that was selected since."""
        number = self._selected
        return self.stopped_cpu if number is None else self.machine.cpus[number]

    @property
    def stopped_cpu(self) -> Cpu:
        """The CPU that stopped."""
        return self.stop.cpu

    @property
    def exception(self) -> ExceptionExit | None:
        """The exception at which the CPU that is looked at is stopped; None: it is not, or another one is."""
        exception = self.stop.exception
        return exception if exception is not None and exception.vcpu == self.cpu.number else None

    def select(self, number: int | None) -> None:
        """Look at another CPU, until the guest runs; None: at the one that stopped. Raises UsageError."""
        if number is not None and not 0 <= number < len(self.machine.cpus):
            raise UsageError(f"the guest has no CPU {number}")
        self._selected, self._fpu = number, None

    @property
    def fpu(self) -> bytes:
        """The x87, MMX and SSE registers, as `arch.fxsave` has them; empty: the processor does not give them.

        They can be set, which raises UsageError for reserved bits of MXCSR.
        """
        self.cpu.registers.check(False)
        if self._fpu is None:
            self._fpu = self.cpu.vcpu.processor.read_fpu()
        return self._fpu

    @fpu.setter
    def fpu(self, image: bytes) -> None:
        self.cpu.registers.check(True)
        self._fpu = None
        self.cpu.vcpu.processor.write_fpu(image)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to run."""
        return self.stop.reason in FINAL

    def catch(self, text: str) -> Catch:
        """Stop at exceptions, given as `VECTORS [if CONDITION]`: `pf,gp if cpl == 0`. They are forced from now on.

        Raises UsageError.
        """
        at, session = parse_stop(text), self.machine.session
        caught, before = Catch(self._numbers + 1, at), session.vm.mask
        self.machine.set_exceptions(before | at.vectors)
        try:
            check_forced("catch", {at.text: at.vectors}, session.vm.mask, session.processor.capabilities)
        except UsageError:
            self.machine.set_exceptions(before)
            raise

        def stop(exc: ExceptionExit) -> Decision | None:
            return STOP if not self.passed >> exc.vector & 1 else None

        where = None if at.condition is None else at.condition.text
        self._catches[caught] = self.machine.on(*map(Vector, bits(at.vectors)), where=where)(stop)
        self._numbers = caught.number
        return caught

    def release(self, caught: Catch) -> None:
        """Stop no more at what was caught. Raises KeyError for what is not."""
        self.machine.off(self._catches.pop(caught))

    @property
    def catches(self) -> tuple[Catch, ...]:
        """What is caught, in order."""
        return tuple(self._catches)

    def resume(self, decision: Decision = FORWARD, timeout: float | None = None) -> Stop:
        """Run until the machine stops. `decision` is about the exception at which it is stopped, if it is at one."""
        self._decide(decision)
        return self._run(timeout, None)

    def step(self, decision: Decision = FORWARD, timeout: float | None = None) -> Stop:
        """Execute one instruction, or deliver one event, which is the exception at which the machine is stopped.

        Of several CPUs it is the one that is looked at; the others stand still. Raises UsageError for one that waits.
        """
        self._decide(decision)
        vm = self.machine.session.vm
        stopped, vm.vcpu = vm.vcpu, self.cpu.vcpu
        try:
            return self._stopped(self.machine.step(timeout))
        except UsageError:  # that one cannot be stepped now
            vm.vcpu = stopped
            raise

    def step_over(self, decision: Decision = FORWARD, timeout: float | None = None) -> Stop:
        """Step, but run a function that the instruction calls, or the iterations of REP, to the end."""
        line = next(iter(self.cpu.disassemble()), None)
        if self.stop.exception is not None or line is None or not _returns(line.text):
            return self.step(decision, timeout)
        return self.run_to(line.address + len(line.data), above=self.cpu.registers.rsp - 1, timeout=timeout)

    def step_out(self, timeout: float | None = None) -> Stop:
        """Run to the caller. Raises UsageError where it is not known."""
        callers = self.frames()[1:]
        if not callers:
            raise UsageError(
                "the caller is not known: symbols have no call frames of it, and there are no frame pointers"
            )
        return self.run_to(callers[0].address, above=self.cpu.registers.rsp, timeout=timeout)

    def run_to(self, address: int, *, above: int | None = None, timeout: float | None = None) -> Stop:
        """Run to an instruction, or to whatever stops the machine before; `above`: only where RSP is above it.

        A stop there has the reason STEP. It is one of the CPU that is looked at: others pass.
        """
        breakpoints, number = self.machine.breakpoints, self.cpu.number
        deadline = None if timeout is None else time.monotonic() + timeout
        with breakpoints.temporary(address):
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._decide(FORWARD)
                stop = self._run(left, address)
                if stop.reason is not StopReason.BREAKPOINT or self.cpu.address != address:
                    return stop
                if address in breakpoints and not self.passes():
                    return stop
                if self.cpu.number == number and (above is None or self.cpu.registers.rsp > above):
                    return self._stopped(stop._replace(reason=StopReason.STEP))

    def step_line(self, *, into: bool, timeout: float | None = None) -> Stop:
        """Step until another source line begins, or to whatever stops the machine before.

        Where no line is known it is one instruction. `into`: also into functions that have lines.
        """
        first, frame = self.line, self.cpu.registers.rsp
        while True:
            inside = self.cpu.symbol
            stop = self.step(timeout=timeout) if into else self.step_over(timeout=timeout)
            if stop.reason is not StopReason.STEP or first is None:
                return stop
            if into and self.line is None and self.cpu.symbol != inside and self.cpu.registers.rsp < frame:
                stop = self.step_out(timeout)
                if stop.reason is not StopReason.STEP:
                    return stop
            if self.line is not None and self.line != first:
                return stop

    @property
    def line(self) -> tuple[str, int] | None:
        """The source line of the stopped guest; None: unknown."""
        symbol = self.cpu.symbol
        return None if symbol is None or symbol.file is None or symbol.line is None else (symbol.file, symbol.line)

    def frames(self) -> tuple[Frame, ...]:
        """Return where the guest is and its callers, innermost first: see `Cpu.backtrace`."""
        return (Frame(self.cpu.address, self.cpu.symbol), *self.cpu.backtrace())

    def explain(self) -> Explanation | None:
        """Explain the shutdown, or the exception at which the guest is stopped; None: there is neither."""
        return self.stop.explain()

    def named(self, address: int) -> str:
        """Return a linear address with its symbol: `0x100020 <kmain+0x10>`."""
        symbol = self.machine.lookup(address)
        return f"{address:#x}" if symbol is None else f"{address:#x} <{symbol.place}>"

    def skip(self) -> None:
        """Set RIP of the CPU that stopped after its instruction at CS:RIP. Raises UsageError where none is mapped."""
        line = next(iter(self.stopped_cpu.disassemble()), None)
        if line is None:
            raise UsageError("no instruction is mapped at CS:RIP: it cannot be skipped")
        registers = self.stopped_cpu.registers
        registers.rip = next_rip(registers.save, len(line.data))

    def interrupt(self) -> None:
        """Stop a running machine; from any thread."""
        self.machine.interrupt()

    def forget_interrupt(self) -> None:
        """Let the next run run, although the machine stopped by itself as it was interrupted. Not while it runs."""
        self.machine.session.vm.forget_interrupt()

    def _run(self, timeout: float | None, end: int | None) -> Stop:
        """Run past breakpoints at which the guest goes on; `end` is the address of one that is not asked about."""
        while True:
            stop = self._stopped(self.machine.run(timeout))
            if stop.reason is not StopReason.BREAKPOINT or self.cpu.address == end or not self.passes():
                return stop

    def _decide(self, decision: Decision) -> None:
        if self.stop.exception is not None:
            self.stop.deliver(decision)
        elif decision not in (FORWARD, DISCARD):
            raise UsageError("the guest is not stopped at an exception: there is none to replace")

    def _stopped(self, stop: Stop) -> Stop:
        self.stop, self._selected, self._fpu = stop, None, None
        return stop


def _returns(text: str) -> bool:
    """Return whether an instruction comes back to the next one after it ran others, or itself."""
    first = text.split(maxsplit=1)[0]
    return first in _CALLS or first.startswith("rep")
