"""The state of a processor after RESET (APM 14.1.3, tables 14-1 and 14-2)."""

from typing import Final

from .layout import zero
from .registers import CR0, DR6, DR7, EFER, RFLAGS, Gprs
from .vmcb import Segment, Vmcb

RESET_VECTOR: Final = 0xFFFF_FFF0
"""The physical address of the first instruction: the base of CS plus RIP."""

DEFAULT_PAT: Final = 0x0007_0406_0007_0406

# Attributes with the accessed bit set, and TR as a busy 32-bit TSS: the manual's table prints 092, 09A and
# 083; QEMU and Bochs load these, and a descriptor that a CPU has loaded looks like this.
_CODE: Final = 0x09B
_DATA: Final = 0x093
_LDT: Final = 0x082
_TSS: Final = 0x08B


def reset(vmcb: Vmcb, gprs: Gprs, *, signature: int) -> None:
    """Write the state after RESET over the save area and the registers; the control area is left alone.

    `signature` is the family, model and stepping, as in EAX of CPUID function 1. EFER.SVME is set, which a
    real reset clears, because VMRUN demands it (APM 15.5.1).
    """
    save = vmcb.save
    zero(save)
    zero(gprs)
    for segment in (save.es, save.ss, save.ds, save.fs, save.gs):
        _load(segment, _DATA)
    _load(save.cs, _CODE, selector=0xF000, base=0xFFFF_0000)
    _load(save.ldtr, _LDT)
    _load(save.tr, _TSS)
    save.gdtr.limit = save.idtr.limit = 0xFFFF
    save.efer = EFER.SVME
    save.cr0 = CR0.CD | CR0.NW | CR0.ET
    save.dr6 = DR6.FIXED
    save.dr7 = DR7.FIXED
    save.rflags = RFLAGS.ALWAYS_ONE
    save.rip = 0xFFF0
    save.g_pat = DEFAULT_PAT
    gprs.rdx = signature


def _load(segment: Segment, attributes: int, *, selector: int = 0, base: int = 0) -> None:
    segment.selector = selector
    segment.attributes = attributes
    segment.limit = 0xFFFF
    segment.base = base
