"""Exits of instructions."""

from typing import Final

from trapline.arch import msr
from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.vectors import Vector

from .check import Check, Exit, Turn
from .code import assemble
from .modes import EVERYWHERE, LONG, PROTECTED_32, REAL, Mode, where

_SVM: Final = (
    ("vmrun", ExitCode.VMRUN),
    ("vmmcall", ExitCode.VMMCALL),
    ("vmload", ExitCode.VMLOAD),
    ("vmsave", ExitCode.VMSAVE),
    ("stgi", ExitCode.STGI),
    ("clgi", ExitCode.CLGI),
    ("skinit", ExitCode.SKINIT),
    ("invlpga", ExitCode.INVLPGA),
)
_VECTOR: Final = 0x41


def _cpuid(mode: Mode, cpl: int) -> Check:
    code = assemble(mode.bits, "cpuid", "nop", "cpuid")
    return Check(
        f"CPUID {where(mode, cpl)}",
        "CPUID exits with nRIP after it, and the guest resumes there",
        mode,
        cpl,
        code.blob,
        (
            Turn(Exit(ExitCode.CPUID), sets={"save.rax": 7, "gprs.rcx": 1}),
            Turn(Exit(ExitCode.CPUID, rip=_AFTER_CPUID + 1), sets={"save.rip": _AFTER_CPUID}),
        ),
    )


_AFTER_CPUID: Final = assemble(32, "cpuid", "next:", "nop").labels["next"]


def _msr(mode: Mode, *, write: bool) -> Check:
    name = "wrmsr" if write else "rdmsr"
    code = assemble(mode.bits, name, "next:", "cpuid")
    exit = Exit(ExitCode.MSR, info_1=int(write), nrip=code.labels["next"])
    return Check(
        f"{name.upper()} {where(mode, 0)}",
        "an MSR of the permission map exits; EXITINFO1 tells reads from writes, nRIP is after the instruction",
        mode,
        0,
        code.blob,
        (Turn(exit, sets={"gprs.rcx": msr.VM_HSAVE_PA, "save.rax": 0x1000}),),
    )


def _hlt(mode: Mode) -> Check:
    code = assemble(mode.bits, "hlt", "next:", "cpuid")
    exit = Exit(ExitCode.HLT, nrip=code.labels["next"])
    return Check(f"HLT {where(mode, 0)}", "HLT exits with nRIP after it", mode, 0, code.blob, (Turn(exit),))


def _svm(name: str, exit_code: ExitCode) -> Check:
    code = assemble(64, name, "cpuid")
    return Check(
        f"{name.upper()} {where(LONG, 0)}",
        "an SVM instruction exits before it has an effect",
        LONG,
        0,
        code.blob,
        (Turn(Exit(exit_code), sets={"save.rax": 0x5000}),),
    )


def _swint(mode: Mode, cpl: int) -> Check:
    """Return a check of INT n that is intercepted, and then of the same INT n that is not."""
    code = assemble(mode.bits, ("int", _VECTOR), "next:", "cpuid")
    after = code.labels["next"]
    intercepted = Exit(ExitCode.SWINT, info_1=_VECTOR, nrip=after)
    delivered = Exit(ExitCode.CPUID, delivers=Event(_VECTOR, EventType.SOFT), next_rip=after)
    return Check(
        f"INT n {where(mode, cpl)}",
        "INT n exits with its vector in EXITINFO1 and nRIP after it; without the intercept its handler starts",
        mode,
        cpl,
        code.blob,
        (Turn(intercepted, intercepts=(ExitCode.SWINT,)), Turn(delivered)),
    )


def _int1(mode: Mode, cpl: int) -> Check:
    """Return a check of INT1 that is intercepted, and then of the same that is not, with #DB intercepted."""
    code = assemble(mode.bits, "int1", "after:", "cpuid")
    after = code.labels["after"]
    delivered = Exit(ExitCode.CPUID, delivers=Event(Vector.DB, EventType.EXCEPTION), raised_at=after)
    return Check(
        f"INT1 {where(mode, cpl)}",
        "INT1 exits before it does anything; without its intercept its #DB is delivered, whatever else is intercepted",
        mode,
        cpl,
        code.blob,
        (
            Turn(Exit(ExitCode.ICEBP, nrip=after), intercepts=(ExitCode.ICEBP,), exceptions=1 << Vector.DB),
            Turn(delivered, exceptions=1 << Vector.DB),
        ),
    )


def _shutdown(mode: Mode) -> Check:
    code = assemble(mode.bits, "ud2", "cpuid")
    return Check(
        f"SHUTDOWN {where(mode, 0)}",
        "a fault without a usable IDT ends in a shutdown",
        mode,
        0,
        code.blob,
        (Turn(Exit(ExitCode.SHUTDOWN, keeps_state=False), sets={"save.idtr.limit": 0}),),
    )


CHECKS: Final = (
    *(_cpuid(mode, cpl) for mode, cpl in EVERYWHERE),
    *(_msr(mode, write=write) for mode in (REAL, PROTECTED_32, LONG) for write in (False, True)),
    *(_hlt(mode) for mode, cpl in EVERYWHERE if cpl == 0),
    *(_svm(name, code) for name, code in _SVM),
    *(_swint(mode, cpl) for mode, cpl in EVERYWHERE),
    *(_int1(mode, cpl) for mode, cpl in EVERYWHERE),
    *(_shutdown(mode) for mode in (PROTECTED_32, LONG)),
)
