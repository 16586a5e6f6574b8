"""What the VMCB intercepts: derived from what is forced and what is always needed, in one place."""

from typing import Final

from trapline.arch import msr
from trapline.arch.exits import ExitCode, set_intercept

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
"""A guest without SVM must not see, use or break ours."""


def recalc_intercepts(vcpu: Vcpu) -> None:
    """Write the intercepts of a vCPU's VMCB anew, and tell the processor which exceptions it may forward by itself."""
    control = vcpu.control
    capabilities = vcpu.processor.capabilities
    policy = vcpu.policy
    control.intercept_cr = control.intercept_dr = control.intercept_misc3 = 0
    control.intercept_misc1 = control.intercept_misc2 = 0
    control.intercept_exceptions = policy.mask
    for code in _ALWAYS:
        set_intercept(control, code)
    if not capabilities.hides_svm:
        set_intercept(control, ExitCode.CPUID)
    for number in (msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR):
        writes = number != msr.EFER or not capabilities.keeps_svme
        _guard(vcpu.processor.msrpm, number, writes=writes)
    vcpu.processor.intercepts_changed(policy.mask & ~policy.decided)


def _guard(msrpm: memoryview, number: int, *, writes: bool) -> None:
    bit = msr.msrpm_bit(number)
    assert bit is not None, f"MSR {number:#x} is outside the permission map"
    msrpm[bit // 8] |= (0b11 if writes else 0b01) << bit % 8
