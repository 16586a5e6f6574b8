"""What a user's callback gets of an exception, and how its answer reaches the hypervisor."""

from collections.abc import Callable
from typing import TypeAlias

from trapline.arch.events import Event
from trapline.arch.vectors import Vector
from trapline.hypervisor.delivery import check_injection
from trapline.hypervisor.exception import Decision, Injection, InterceptedException, Verdict
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.registers import Registers
from trapline.symbols import Symbol
from trapline.trace.condition import Condition

from .cpu import Cpu


class ExceptionExit:
    """An intercepted exception before the guest sees it, while the guest is stopped at it.

    It has the attributes of an ExceptionRecord, but for what became of it. They are read when they are asked for: valid
    until the guest runs on.
    """

    __slots__ = ("_reported", "cpu", "seq")

    def __init__(self, cpu: Cpu, reported: InterceptedException, seq: int) -> None:
        self.cpu: Cpu = cpu
        """The CPU that raised it."""
        self.seq: int = seq
        """The number that its record will have."""
        self._reported = reported

    @property
    def vector(self) -> Vector:
        """Which exception."""
        return Vector(self._reported.event.vector)

    @property
    def error_code(self) -> int | None:
        """The error code that it pushes; None: it pushes none."""
        return self._reported.event.error_code

    @property
    def address(self) -> int | None:
        """The faulting linear address of a #PF, which CR2 does not hold yet."""
        return self._reported.address

    @property
    def vectoring(self) -> Event | None:
        """The event that was being delivered when it was raised (EXITINTINFO); None: none was."""
        return self._reported.vectoring

    @property
    def synthesized(self) -> bool:
        """Whether the hypervisor raised it, as the #DF that two exceptions combine to."""
        return self._reported.synthesized

    @property
    def registers(self) -> Registers:
        """The registers of its CPU, which can be changed."""
        return self.cpu.registers

    @property
    def rip(self) -> int:
        """RIP of the instruction. Change it to say where the guest goes on after DISCARD."""
        return self.cpu.registers.rip

    @rip.setter
    def rip(self, value: int) -> None:
        self.cpu.registers.rip = value

    @property
    def linear_rip(self) -> int:
        """The linear address of the instruction."""
        return self.cpu.address

    @property
    def symbol(self) -> Symbol | None:
        """The name of that address, where symbols know it."""
        return self.cpu.symbol

    @property
    def vcpu(self) -> int:
        """Number of the virtual CPU."""
        return self.cpu.number

    @property
    def cpl(self) -> int:
        """The privilege level at which it was raised."""
        return self.cpu.registers.cpl

    @property
    def cs(self) -> int:
        """The selector of the code segment."""
        return self.cpu.registers.cs.selector

    @property
    def cs_base(self) -> int:
        """The base of the code segment."""
        return self.cpu.registers.cs.base

    @property
    def ss(self) -> int:
        """The selector of the stack segment."""
        return self.cpu.registers.ss.selector

    @property
    def tsc(self) -> int:
        """The time stamp counter at the #VMEXIT."""
        return self.cpu.tsc

    rsp = property(lambda self: self.cpu.registers.rsp)
    rflags = property(lambda self: self.cpu.registers.rflags)
    cr0 = property(lambda self: self.cpu.registers.cr0)
    cr3 = property(lambda self: self.cpu.registers.cr3)
    cr4 = property(lambda self: self.cpu.registers.cr4)
    efer = property(lambda self: self.cpu.registers.efer)
    dr6 = property(lambda self: self.cpu.registers.dr6)

    def __str__(self) -> str:
        place = f"{self._reported.event} at {self.cs:04x}:{self.rip:x}"
        return place if (symbol := self.symbol) is None else f"{place} {symbol}"


Callback: TypeAlias = Callable[[ExceptionExit], Decision | None]
"""A user's function. None forwards the exception."""


class Handler:
    """Implements `hypervisor.observers.Observer` by a user's function."""

    def __init__(
        self,
        vectors: int,
        callback: Callback,
        condition: Condition | None,
        see: Callable[[Vcpu, InterceptedException], ExceptionExit],
        failed: Callable[[Exception], None],
    ) -> None:
        """`see` makes what the function gets; `failed` gets what it raises, and the guest stops at the exception."""
        self.vectors = vectors
        self.callback = callback
        self._condition, self._see, self._failed = condition, see, failed

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Decision:
        """Ask the function, where the condition holds."""
        try:
            return self._ask(self._see(vcpu, exit))
        except Exception as error:  # noqa: BLE001  # what a user's function raises reaches whoever runs the guest
            self._failed(error)
            return Verdict.STOP

    def _ask(self, exc: ExceptionExit) -> Decision:
        if self._condition is not None and not self._condition.matches(exc):
            return Verdict.FORWARD
        decision = self.callback(exc)
        if decision is None:
            return Verdict.FORWARD
        if isinstance(decision, Injection):
            check_injection(exc.cpu.vcpu, decision)
        elif not isinstance(decision, Verdict):
            raise TypeError(f"{self.callback!r} returned {decision!r}: neither a verdict nor inject(...) nor None")
        return decision
