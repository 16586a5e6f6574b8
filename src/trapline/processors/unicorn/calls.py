"""SYSCALL and SYSENTER, which Unicorn leaves to its user (APM vol. 3; vol. 2, 6.1)."""

from typing import Final

from trapline.arch.bits import M32
from trapline.arch.descriptors import CODE_32, CODE_64, DATA_32, Attribute, Selector, flat
from trapline.arch.registers import CR0, EFER, RFLAGS, Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea, load_segment

_LENGTH: Final = 2
"""Bytes of SYSCALL."""


def syscall(save: SaveArea, gprs: Gprs) -> Vector | None:
    """Enter the kernel, or return the vector of the fault: #UD where EFER.SCE is clear."""
    if not save.efer & EFER.SCE:
        return Vector.UD
    selector = save.star >> 32 & Selector.REFERENCE
    if save.efer & EFER.LMA:
        from_64 = bool(save.cs.attributes & Attribute.L)
        gprs.rcx, gprs.r11 = save.rip + _LENGTH, save.rflags & ~RFLAGS.RF
        load_segment(save.cs, flat(selector, CODE_64))
        save.rflags = save.rflags & ~(save.sfmask | RFLAGS.RF)
        save.rip = save.lstar if from_64 else save.cstar
    else:
        gprs.rcx = save.rip + _LENGTH & M32
        load_segment(save.cs, flat(selector, CODE_32))
        save.rflags &= ~(RFLAGS.IF | RFLAGS.VM | RFLAGS.RF)
        save.rip = save.star & M32
    load_segment(save.ss, flat(selector + 8, DATA_32))
    save.cpl = 0
    return None


def sysenter(save: SaveArea) -> Vector | None:
    """Enter the kernel, or return the vector of the fault: #GP(0) in real mode and for a null selector in the MSR."""
    selector = save.sysenter_cs & Selector.REFERENCE
    if not save.cr0 & CR0.PE or not selector:
        return Vector.GP
    long = bool(save.efer & EFER.LMA)
    save.rflags &= ~(RFLAGS.IF | RFLAGS.VM | RFLAGS.RF)
    load_segment(save.cs, flat(selector, CODE_64 if long else CODE_32))
    load_segment(save.ss, flat(selector + 8, DATA_32))
    save.cpl = 0
    save.rsp, save.rip = save.sysenter_esp, save.sysenter_eip
    return None
