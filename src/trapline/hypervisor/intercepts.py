"""The intercepts in the VMCB: the forced exceptions, what hides SVM from the guest, and what a step needs."""

from typing import Final

from trapline.arch import msr
from trapline.arch.exits import ExitCode, clear_intercept, exception_exit, set_intercept
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import IntCtl

from .vcpu import Vcpu

_ALWAYS: Final = (
    ExitCode.SHUTDOWN,
    ExitCode.MSR,
    ExitCode.VMRUN,
    ExitCode.VMMCALL,
    ExitCode.VMLOAD,
    ExitCode.VMSAVE,
    ExitCode.STGI,
    ExitCode.CLGI,
    ExitCode.SKINIT,
    ExitCode.INVLPGA,
)
"""Keep the guest from seeing and using SVM."""
_ALL_EXCEPTIONS: Final = 0xFFFF_FFFF & ~(1 << Vector.NMI | 1 << 9)
"""All bits but those of vectors 2 and 9, which are undefined (APM 15.12)."""
_TS_EXIT: Final = exception_exit(Vector.TS)
WAITS: Final = (ExitCode.HLT, ExitCode.MWAIT)
"""Instructions that wait for an interrupt."""
_IN_STEP: Final = (*WAITS, ExitCode.NMI, ExitCode.SWINT, ExitCode.ICEBP, ExitCode.PAUSE)
"""Instructions that TF does not trap after, and events whose frame would show TF."""


def recalc_intercepts(vcpu: Vcpu) -> None:
    """Write the intercepts of a vCPU, and tell the processor which exceptions it may forward without an exit."""
    control = vcpu.control
    capabilities = vcpu.processor.capabilities
    policy = vcpu.policy
    control.intercept_cr = control.intercept_dr = control.intercept_misc3 = 0
    control.intercept_misc1 = control.intercept_misc2 = 0
    control.intercept_exceptions = policy.mask
    for code in _ALWAYS:
        set_intercept(control, code)
    if policy.mask >> Vector.DB & 1:
        set_intercept(control, ExitCode.ICEBP)
    if not capabilities.hides_svm:
        set_intercept(control, ExitCode.CPUID)
    for number in (msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR):
        _guard(vcpu.processor.msrpm, number)
    if vcpu.stepping:
        control.int_ctl &= ~IntCtl.V_INTR_MASKING
        vcpu.stepping = False
    vcpu.processor.intercepts_changed(policy.mask & ~(policy.decided | policy.watched))


def intercept_for_step(vcpu: Vcpu, *, waiting: bool = False) -> None:
    """Also intercept what could end a step elsewhere than after the instruction, and mask interrupts.

    `waiting`: HLT and MWAIT are executed instead, and an interrupt is intercepted. `recalc_intercepts` restores the
    intercepts of a run.
    """
    control = vcpu.control
    control.intercept_exceptions = _ALL_EXCEPTIONS
    if not vcpu.processor.capabilities.ts_error_code:
        clear_intercept(control, _TS_EXIT)
    for code in _IN_STEP:
        set_intercept(control, code)
    clear_intercept(control, ExitCode.INTR)
    control.int_ctl |= IntCtl.V_INTR_MASKING
    if waiting:
        for code in WAITS:
            clear_intercept(control, code)
        set_intercept(control, ExitCode.INTR)
        control.int_ctl &= ~IntCtl.V_INTR_MASKING
    vcpu.stepping = True
    vcpu.processor.intercepts_changed(0)


def _guard(msrpm: memoryview, number: int) -> None:
    bit = msr.msrpm_bit(number)
    assert bit is not None, f"MSR {number:#x} is outside the permission map"
    msrpm[bit // 8] |= 0b11 << bit % 8
