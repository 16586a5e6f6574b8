"""The handlers of the exits that the hypervisor intercepts."""

from trapline.arch import msr
from trapline.arch.bits import M32
from trapline.arch.cpuid import (
    EBX,
    EFER_FEATURES,
    EXTENDED,
    EXTENDED_2,
    FEATURES,
    HAS_SVM,
    NO_LMSLE,
    OSPKE,
    OSXSAVE,
    SIZES,
    STRUCTURED,
    SVM,
)
from trapline.arch.events import Event, EventType
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.paging import PAGE_OFFSET
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import VECTORS, WITH_ERROR_CODE, Vector

from .delivery import error_code, forward, inject
from .emulate import raise_exception, skip_instruction
from .exception import InterceptedException
from .exits import ExitTable
from .stop import Answer, Resume, Stop, StopReason
from .unhandled import unhandled
from .vcpu import Vcpu

TABLE = ExitTable()
_TAKEN_EFER = EFER.SCE | EFER.LME | EFER.NXE | EFER.FFXSR
"""What a processor that takes any value of EFER changes."""

_PLAIN = tuple(InterceptedException(Event(vector, EventType.EXCEPTION), None, None) for vector in range(len(VECTORS)))
"""Exceptions without error code, address and vectoring, made once."""


@TABLE.on(EXCEPTION_EXITS)
def exception(vcpu: Vcpu) -> Answer:
    """Forward a forced exception. An exit for one that is not forced ends the run."""
    control = vcpu.control
    vector = control.exit_code - EXCEPTION_EXITS.start
    if not vcpu.policy.mask >> vector & 1:
        return unhandled(vcpu.processor.vmcb)
    exit, vectoring = _PLAIN[vector], vcpu.vectoring
    if WITH_ERROR_CODE >> vector & 1:
        event = Event(vector, EventType.EXCEPTION, error_code(vector, control.exit_info_1))
        exit = InterceptedException(event, None, control.exit_info_2 if vector == Vector.PF else None)
    if vectoring is not None:
        cr2 = vcpu.save.cr2 if vectoring.vector == Vector.PF else None
        exit = exit._replace(vectoring=vectoring, vectoring_address=cr2)
    return forward(vcpu, exit)


@TABLE.on(ExitCode.ICEBP)
def int1(vcpu: Vcpu) -> Answer:
    """INT1 raises a #DB that the intercept of #DB does not see (APM vol. 2, 15.12.2): a trap."""
    vcpu.save.rip = vcpu.control.nrip
    if vcpu.policy.mask >> Vector.DB & 1:
        return forward(vcpu, _PLAIN[Vector.DB])
    inject(vcpu, _PLAIN[Vector.DB].event)
    return Resume.DONE


@TABLE.on(ExitCode.SHUTDOWN)
def shutdown(vcpu: Vcpu) -> Answer:
    """A triple fault that the CPU detected."""
    return Stop(StopReason.SHUTDOWN)


@TABLE.on(
    ExitCode.VMRUN,
    ExitCode.VMMCALL,
    ExitCode.VMLOAD,
    ExitCode.VMSAVE,
    ExitCode.STGI,
    ExitCode.CLGI,
    ExitCode.SKINIT,
    ExitCode.INVLPGA,
)
def svm_instruction(vcpu: Vcpu) -> Answer:
    """The guest has no SVM: its instructions raise #UD."""
    return raise_exception(vcpu, Vector.UD)


@TABLE.on(ExitCode.CPUID)
def cpuid(vcpu: Vcpu) -> Answer:
    """Return what the CPU returns, without SVM."""
    save, gprs = vcpu.processor.vmcb.save, vcpu.processor.gprs
    leaf = save.rax & M32
    subleaf = gprs.rcx & M32
    eax, ebx, ecx, edx = vcpu.processor.cpuid(leaf, subleaf)
    # OSXSAVE and OSPKE show CR4 of the guest (CPUID functions 1 and 7).
    if leaf == FEATURES:
        ecx = ecx & ~OSXSAVE | (OSXSAVE if save.cr4 & CR4.OSXSAVE else 0)
    elif leaf == STRUCTURED and subleaf == 0:
        ecx = ecx & ~OSPKE | (OSPKE if save.cr4 & CR4.PKE else 0)
    elif leaf == EXTENDED:
        ecx &= ~HAS_SVM
    elif leaf == SVM:
        eax = ebx = ecx = edx = 0
    save.rax, gprs.rbx, gprs.rcx, gprs.rdx = eax, ebx, ecx, edx
    return skip_instruction(vcpu)


@TABLE.on(ExitCode.MSR)
def model_specific_register(vcpu: Vcpu) -> Answer:
    """RDMSR or WRMSR of a register that belongs to SVM."""
    number = vcpu.processor.gprs.rcx & M32
    if vcpu.processor.vmcb.control.exit_info_1 & 1:
        value = (vcpu.processor.gprs.rdx & M32) << 32 | vcpu.processor.vmcb.save.rax & M32
        accepted = _write(vcpu, number, value)
    else:
        accepted = _read(vcpu, number)
    return skip_instruction(vcpu) if accepted else raise_exception(vcpu, Vector.GP)


def _read(vcpu: Vcpu, number: int) -> bool:
    save = vcpu.processor.vmcb.save
    values = {msr.EFER: save.efer & ~EFER.SVME, msr.VM_HSAVE_PA: vcpu.vm_hsave_pa, msr.VM_CR: 0}
    if number not in values:
        return False
    save.rax, vcpu.processor.gprs.rdx = values[number] & M32, values[number] >> 32
    return True


def _write(vcpu: Vcpu, number: int, value: int) -> bool:
    """Write a register; False: the write raises #GP(0)."""
    if number == msr.EFER:
        return _write_efer(vcpu, value)
    if number == msr.VM_HSAVE_PA:
        if value & PAGE_OFFSET or value >> vcpu.processor.capabilities.physical_bits:
            return False
        vcpu.vm_hsave_pa = value
        return True
    return number == msr.VM_CR


def _write_efer(vcpu: Vcpu, value: int) -> bool:
    save, writable = vcpu.save, _writable_efer(vcpu)
    changed = (value ^ save.efer) & ~(EFER.SVME | EFER.LMA)
    refused = bool(changed & ~writable or (changed & EFER.LME and save.cr0 & CR0.PG))
    if vcpu.processor.capabilities.takes_any_efer:
        if refused:
            vcpu.policy.tolerated(vcpu)
        writable &= _TAKEN_EFER
        save.efer = save.efer & ~writable | value & writable
        return True
    if refused or value & EFER.SVME:
        return False
    save.efer = value & ~EFER.LMA | save.efer & EFER.LMA | EFER.SVME
    return True


def _writable_efer(vcpu: Vcpu) -> int:
    """Return the bits of EFER that this CPU has; with any other VMRUN fails (APM 15.5.1)."""
    leaves = {leaf: vcpu.processor.cpuid(leaf, 0) for leaf in (EXTENDED, SIZES, EXTENDED_2)}
    denied = leaves[SIZES][EBX] & NO_LMSLE or not vcpu.processor.capabilities.lmsle
    writable = 0 if denied else EFER.LMSLE
    for bit, leaf, register, place in EFER_FEATURES:
        writable |= bit * (leaves[leaf][register] >> place & 1)
    return writable
