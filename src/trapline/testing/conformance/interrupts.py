"""Interrupts: the window that STI opens, and the shadows of STI and MOV SS."""

from typing import Final

from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.arch.vmcb import IntCtl
from trapline.asm.operands import AX, SS

from .check import Check, Exit, Turn
from .code import Line, assemble
from .modes import COMPATIBILITY, LONG, PROTECTED_32, REAL, Mode, where

_VECTOR: Final = 0x61
_PENDING: Final = _VECTOR << IntCtl.VECTOR_SHIFT | IntCtl.V_IGN_TPR | IntCtl.V_IRQ
_ON: Final = RFLAGS.ALWAYS_ONE | RFLAGS.IF
_MODES: Final = (REAL, PROTECTED_32, LONG, COMPATIBILITY)


def _window(mode: Mode, *, intercepted: bool) -> Check:
    code = assemble(mode.bits, "nop", "sti", "nop", "open:", "nop", "cpuid")
    return _check(
        f"interrupt window {'' if intercepted else 'without its intercept '}{where(mode, 0)}",
        "a virtual interrupt waits for IF, and for the instruction after STI",
        mode, code.blob, code.labels["open"], RFLAGS.ALWAYS_ONE, intercepted=intercepted,
    )  # fmt: skip


def _check(name: str, description: str, mode: Mode, blob: bytes, opens: int, flags: int, *, intercepted: bool) -> Check:
    if intercepted:
        exit = Exit(ExitCode.VINTR, rip=opens, changes={"save.rflags": _ON}, v_irq=True)
    else:
        event = Event(_VECTOR, EventType.INTR)
        exit = Exit(ExitCode.CPUID, delivers=event, raised_at=opens, changes={"save.rflags": _ON})
    sets = {"control.int_ctl": _PENDING, "save.rflags": flags}
    intercepts = (ExitCode.VINTR,) if intercepted else ()
    return Check(name, description, mode, 0, blob, (Turn(exit, sets=sets, intercepts=intercepts),))


def _shadow_at_exit(mode: Mode, name: str, line: Line) -> Check:
    code = assemble(mode.bits, line, "end:", "cpuid")
    flags = {"save.rflags": _ON} if name == "STI" else {}
    exit = Exit(ExitCode.CPUID, rip=code.labels["end"], shadow=1, changes=flags)
    return Check(
        f"shadow of {name} at an exit {where(mode, 0)}",
        "the exit of an instruction in a shadow stores the shadow",
        mode,
        0,
        code.blob,
        (Turn(exit, sets={"save.rax": mode.data[0]}),),
    )


def _given_shadow(mode: Mode) -> Check:
    code = assemble(mode.bits, "nop", "open:", "nop", "cpuid")
    check = _check(
        f"shadow at the entry {where(mode, 0)}",
        "an interrupt shadow in the VMCB lasts for one instruction",
        mode, code.blob, code.labels["open"], _ON, intercepted=True,
    )  # fmt: skip
    turn = check.turns[0]
    return check._replace(turns=(turn._replace(sets={**turn.sets, "control.interrupt_shadow": 1}),))


CHECKS: Final = (
    *(_window(mode, intercepted=intercepted) for mode in _MODES for intercepted in (True, False)),
    *(_shadow_at_exit(mode, "STI", "sti") for mode in _MODES),
    *(_shadow_at_exit(mode, "MOV SS", ("mov", SS, AX)) for mode in (REAL, PROTECTED_32, LONG)),
    *(_given_shadow(mode) for mode in _MODES),
)
