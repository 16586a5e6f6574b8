"""What a user's callback gets of an exception, and how its decision reaches the hypervisor."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from trapline.arch.events import Event
from trapline.arch.mask import ExceptionMask
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector
from trapline.errors import UsageError
from trapline.hypervisor.delivery import check_decision
from trapline.hypervisor.exception import Decision, InterceptedException, Verdict
from trapline.hypervisor.vcpu import Vcpu
from trapline.machine.registers import Registers
from trapline.symbols import Symbol
from trapline.trace.condition import Condition

from .cpu import Cpu


class ExceptionExit:
    """An intercepted exception that is not delivered yet. The guest is stopped at it.

    It has the attributes of an ExceptionRecord except the outcome. They are read from the stopped guest: they are valid
    until it runs.
    """

    __slots__ = ("_reported", "cpu", "seq")

    def __init__(self, cpu: Cpu, reported: InterceptedException, seq: int) -> None:
        self.cpu: Cpu = cpu
        """The CPU on which it was raised."""
        self.seq: int = seq
        """The number that its record will have."""
        self._reported = reported

    @property
    def vector(self) -> Vector:
        """The exception vector."""
        return Vector(self._reported.event.vector)

    @property
    def error_code(self) -> int | None:
        """The error code; None: the exception pushes none."""
        return self._reported.event.error_code

    @property
    def address(self) -> int | None:
        """The faulting linear address of a #PF, which CR2 does not hold yet."""
        return self._reported.address

    @property
    def vectoring(self) -> Event | None:
        """The event that was being delivered when it was raised (EXITINTINFO); None: there was none."""
        return self._reported.vectoring

    @property
    def synthesized(self) -> bool:
        """Whether the hypervisor raised it, as the #DF that two exceptions combine to."""
        return self._reported.synthesized

    @property
    def registers(self) -> Registers:
        """The registers of its CPU, which can be written."""
        return self.cpu.registers

    @property
    def rip(self) -> int:
        """RIP of the instruction. After DISCARD the guest continues here: write it to skip the instruction."""
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
        """The symbol of that address; None: unknown."""
        return self.cpu.symbol

    @property
    def vcpu(self) -> int:
        """The number of the virtual CPU."""
        return self.cpu.number

    @property
    def cpl(self) -> int:
        """The current privilege level."""
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
        cpu = f" on CPU {self.vcpu}" if self.vcpu else ""
        place = f"{self._reported.event}{cpu} at {self.cs:04x}:{self.rip:x}"
        return place if (symbol := self.symbol) is None else f"{place} {symbol}"


Callback: TypeAlias = Callable[[ExceptionExit], Decision | None]
"""A user's function. None forwards the exception."""


def vectors_mask(vectors: Sequence[object]) -> int:
    """Return the mask of a callback's vectors, by default of all that may be forced; raises UsageError for others."""
    mask = 0 if vectors else FORCEABLE
    for vector in vectors:
        if not (isinstance(vector, int) and 0 <= vector < len(VECTORS)):
            raise UsageError(f"on({vector!r}): give vectors, such as @m.on(Vector.PF), or none for all: @m.on()")
        mask |= 1 << vector
    return ExceptionMask(mask)


class Handler:
    """An observer (`hypervisor.observers.Observer`) that calls a user's function."""

    def __init__(
        self,
        vectors: int,
        callback: Callback,
        condition: Condition | None,
        see: Callable[[Vcpu, InterceptedException], ExceptionExit],
        failed: Callable[[Exception], None],
    ) -> None:
        """`see` makes the function's argument; `failed` gets what it raises, and the guest stops at the exception."""
        self.vectors = vectors
        self.callback = callback
        self._condition, self._see, self._failed = condition, see, failed

    def exception(self, vcpu: Vcpu, exit: InterceptedException, /) -> Decision:
        """Call the function, if the condition holds."""
        try:
            return self._ask(self._see(vcpu, exit))
        except Exception as error:  # noqa: BLE001  # `run` raises it again
            self._failed(error)
            return Verdict.STOP

    def _ask(self, exc: ExceptionExit) -> Decision:
        if self._condition is not None and not self._condition.matches(exc):
            return Verdict.FORWARD
        decision = self.callback(exc)
        if decision is None:
            return Verdict.FORWARD
        try:
            return check_decision(exc.cpu.vcpu, decision)
        except UsageError as error:
            raise UsageError(f"{self.callback!r} returned what cannot be done: {error}") from error
