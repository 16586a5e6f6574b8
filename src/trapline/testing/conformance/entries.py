"""Entry in each mode: code size, segments, stack and flags, and the state at the exit."""

from typing import Final

from trapline.arch.exits import ExitCode
from trapline.arch.registers import RFLAGS
from trapline.asm.operands import AX, CS, Mem

from .check import Check, Exit, Turn
from .code import ACCUMULATORS, BASES, assemble
from .modes import DATA, EVERYWHERE, Mode, where

_VALUE: Final = 0x1234_5678_9ABC_DEF0


def _entry(mode: Mode, cpl: int) -> Check:
    accumulator, base = ACCUMULATORS[mode.bits], BASES[mode.bits]

    code = assemble(mode.bits, ("push", accumulator), ("mov", Mem(base), accumulator), ("mov", AX, CS), "end:", "cpuid")
    width = mode.bits // 8
    value = _VALUE & (1 << mode.bits) - 1
    data = value.to_bytes(width, "little")
    rsp = mode.stack(cpl) - width
    selector = mode.code[cpl == 3]
    exit = Exit(
        ExitCode.CPUID,
        rip=code.labels["end"],
        changes={"save.rsp": rsp, "save.rax": value & ~0xFFFF | selector},
        stores=((DATA, data), (rsp, data)),
    )
    return Check(
        f"entry {where(mode, cpl)}",
        "code, stack and segments are those of the mode, and the exit stores the state",
        mode,
        cpl,
        code.blob,
        (Turn(exit, sets={"save.rax": value, "gprs.rbx": DATA}),),
    )


def _registers(mode: Mode) -> Check:
    """Return a check in which each register has its own value."""
    code = assemble(mode.bits, "cpuid")
    names = ["save.rax", *(f"gprs.{name}" for name in ("rcx", "rdx", "rbx", "rbp", "rsi", "rdi"))]
    if mode.bits == 64:
        names += [f"gprs.r{number}" for number in range(8, 16)]
    mask = (1 << 64) - 1 if mode.bits == 64 else 0xFFFF_FFFF
    values = {name: _VALUE + 0x0101_0101_0101_0101 * number & mask for number, name in enumerate(names)}
    values["save.rflags"] = mode.flags | RFLAGS.ALWAYS_ONE | RFLAGS.CF | RFLAGS.ZF | RFLAGS.DF | RFLAGS.OF
    values["save.cr2"], values["save.dr6"] = 0xDEAD_0008, 0xFFFF_4FF5
    return Check(
        f"registers in {mode.name}",
        "general registers, flags, CR2 and DR6 are loaded and stored",
        mode,
        0,
        code.blob,
        (
            Turn(Exit(ExitCode.CPUID), sets=values),
            Turn(Exit(ExitCode.CPUID), sets={**dict.fromkeys(names, 0), "save.rflags": RFLAGS.ALWAYS_ONE}),
        ),
    )


CHECKS: Final = (
    *(_entry(mode, cpl) for mode, cpl in EVERYWHERE),
    *(_registers(mode) for mode, cpl in EVERYWHERE if cpl == 0),
)
