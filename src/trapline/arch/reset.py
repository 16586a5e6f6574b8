"""The state of a processor after RESET (APM 14.1.3, tables 14-1 and 14-2)."""

from typing import Final

from .bits import M16
from .descriptors import CODE_16, DATA_16, Attribute, SegmentState, SystemType, flat
from .layout import zero
from .registers import CR0, DR6, DR7, EFER, RFLAGS, Gprs
from .vmcb import Vmcb, load_segment

RESET_VECTOR: Final = 0xFFFF_FFF0
"""The physical address of the first instruction: the base of CS plus RIP."""

DEFAULT_PAT: Final = 0x0007_0406_0007_0406

# Attributes with the accessed bit set, and TR as a busy 32-bit TSS: the manual's table prints 092, 09A and
# 083; QEMU and Bochs load these, and a descriptor that a CPU has loaded looks like this.
_LDT: Final = Attribute.P | SystemType.LDT
_TSS: Final = Attribute.P | SystemType.TSS_32 | SystemType.BUSY


def reset(vmcb: Vmcb, gprs: Gprs, *, signature: int) -> None:
    """Write the state after RESET over the save area and the registers; the control area is left alone.

    `signature` is the family, model and stepping, as in EAX of CPUID function 1. EFER.SVME is set, which a
    real reset clears, because VMRUN demands it (APM 15.5.1).
    """
    save = vmcb.save
    zero(save)
    zero(gprs)
    for segment in (save.es, save.ss, save.ds, save.fs, save.gs):
        load_segment(segment, flat(0, DATA_16))
    load_segment(save.cs, SegmentState(0xF000, CODE_16, 0xFFFF, RESET_VECTOR & ~M16))
    load_segment(save.ldtr, flat(0, _LDT))
    load_segment(save.tr, flat(0, _TSS))
    save.gdtr.limit = save.idtr.limit = 0xFFFF
    save.efer = EFER.SVME
    save.cr0 = CR0.CD | CR0.NW | CR0.ET
    save.dr6 = DR6.FIXED
    save.dr7 = DR7.FIXED
    save.rflags = RFLAGS.ALWAYS_ONE
    save.rip = RESET_VECTOR & M16
    save.g_pat = DEFAULT_PAT
    gprs.rdx = signature
