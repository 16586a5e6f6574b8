"""What each stop of Unicorn leads to: an exception, an intercept, a call, a port access that is not permitted."""

from typing import Final

from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.registers import Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.asm.decoder import SVM_MNEMONICS, decode_at_rip
from trapline.errors import ProcessorError

from . import calls
from .bus import MachineBus
from .cpu import Cpu
from .engine import Engine
from .forwarding import Forwarding
from .hooks import Hooks
from .instructions import Instructions
from .memory import Ram
from .pending import Pending
from .stops import INTERCEPTED, RESUME, Next, Stop
from .uc_context import Context

_EXCEPTIONS: Final = EXCEPTION_EXITS.start
_GP, _PF = Vector.GP, Vector.PF
_FIRST_EXCEPTION: Final = INTERCEPTED + _EXCEPTIONS
_CHANGE_INTERRUPTS: Final = (ExitCode.VINTR, ExitCode.WRITE_CR8, ExitCode.IRET)
"""Intercepts after which an interrupt may be deliverable that was not before."""


class Answers:
    """Answers stops, with the guest's state in the VMCB."""

    def __init__(
        self,
        vmcb: Vmcb,
        gprs: Gprs,
        context: Context,
        ram: Ram,
        engine: Engine,
        hooks: Hooks,
        cpu: Cpu,
        bus: MachineBus,
        pending: Pending,
        forwarding: Forwarding,
        instructions: Instructions,
    ) -> None:
        self._control, self._save, self._gprs = vmcb.control, vmcb.save, gprs
        self._context, self._ram = context, ram
        self._unicorn_control = engine.vmcb.control
        self._hooks, self._cpu = hooks, cpu
        self._bus, self._pending = bus, pending
        self._forwarding, self._instructions = forwarding, instructions

    def answer(self, event: int) -> Next:
        """Answer an event of `Hooks`; EXECUTE: it is an intercept, whose instruction Unicorn is to execute."""
        vector = event - _FIRST_EXCEPTION
        if 0 <= vector < 32:
            code = self._context.error_code
            if vector == _GP and not code and self._is_svm():
                vector = Vector.UD
            address = self._unicorn_control.exit_info_2 if vector == _PF else None
            if not self._control.intercept_exceptions >> vector & 1:
                return self._cpu.raise_exception(vector, code, address)
            if self._forwarding.vectors >> vector & 1:
                return self._forwarding.forward(vector, code, address)
            return self._cpu.exit(_EXCEPTIONS + vector, code, address or 0)
        self._cpu.generation = None
        return self._intercept(event - INTERCEPTED) if event >= INTERCEPTED else self._other(event)

    def _is_svm(self) -> bool:
        """Return whether the instruction is of SVM, which the guest does not have: Unicorn checks CPL first."""
        return decode_at_rip(self._save, self._ram).mnemonic in SVM_MNEMONICS

    def _intercept(self, code: int) -> Next:
        if code in _CHANGE_INTERRUPTS:
            self._pending.due = True
        return RESUME if code == ExitCode.VINTR else self._instructions.answer(code)

    def _other(self, event: int) -> Next:
        """Answer what is neither an exception nor an intercept."""
        cpu, save = self._cpu, self._save
        if event == Stop.ASKED:
            self._pending.due = True
            return RESUME
        if event == Stop.BREAKPOINT:
            return Next.BREAKPOINT
        if event == Stop.MISALIGNED:
            return cpu.raise_exception(Vector.GP)
        if event == Stop.NO_AVX:
            return cpu.raise_exception(Vector.UD)
        if event == Stop.PORT:
            return cpu.raise_exception(*self._bus.refusal)
        if event == Stop.SYSCALL:
            return self._call(calls.syscall(save, self._gprs))
        if event == Stop.SYSENTER:
            return self._call(calls.sysenter(save))
        if event == Stop.NO_CODE:
            return cpu.raise_exception(Vector.UD)  # a bus without memory reads all ones, FF FF
        raise ProcessorError(f"Unicorn failed at {save.cs.selector:04x}:{save.rip:x}: {self._hooks.failure or event}")

    def _call(self, fault: Vector | None) -> Next:
        return self._cpu.finish() if fault is None else self._cpu.raise_exception(fault)
