"""MOV to CR3 and CR4: which values raise #GP(0) (APM 3.1.2, 3.1.3; vol. 3, MOV CRn)."""

from typing import Final

from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import CR4
from trapline.arch.vectors import Vector
from trapline.asm.operands import CR3 as CR3_OPERAND
from trapline.asm.operands import CR4 as CR4_OPERAND

from .check import Check, Exit, Turn
from .code import ACCUMULATORS, assemble
from .modes import LONG, PAGED_32, PROTECTED_32, Mode, where

_OPERANDS: Final = {"cr3": CR3_OPERAND, "cr4": CR4_OPERAND}
_RESERVED: Final = (1 << 19, 1 << 31)
"""Bits of CR4 that are reserved in every processor of AMD."""
_WRITE_THROUGH: Final = 1 << 3


def _mov(mode: Mode, register: str, value: int, *, refused: bool) -> Check:
    code = assemble(mode.bits, ("mov", _OPERANDS[register], ACCUMULATORS[mode.bits]), "after:", "cpuid")
    taken = Exit(ExitCode.CPUID, rip=code.labels["after"], changes={f"save.{register}": value})
    exit = Exit(exception_exit(Vector.GP), info_1=0) if refused else taken
    return Check(
        f"MOV to {register.upper()} of {value:#x} {where(mode, 0)}",
        "a value with a reserved bit raises #GP(0), and the register keeps what it had; any other is written",
        mode,
        0,
        code.blob,
        (Turn(exit, sets={"save.rax": value}, exceptions=1 << Vector.GP),),
    )


def _all_of(mode: Mode) -> tuple[Check, ...]:
    refused = [("cr4", mode.cr4 | bit) for bit in _RESERVED]
    taken = [("cr4", mode.cr4 | CR4.DE | CR4.OSFXSR), ("cr3", mode.cr3 | _WRITE_THROUGH)]
    if mode.bits == 64:
        refused += [("cr4", mode.cr4 | 1 << 32)]
    if mode.long:
        refused += [("cr3", mode.cr3 | 1 << 52), ("cr3", mode.cr3 | 1 << 63)]
    else:
        taken += [("cr3", 0xFFFF_F000)] if not mode.cr3 else []
    return tuple(
        _mov(mode, register, value, refused=rows is refused) for rows in (taken, refused) for register, value in rows
    )


CHECKS: Final = tuple(check for mode in (PROTECTED_32, PAGED_32, LONG) for check in _all_of(mode))
