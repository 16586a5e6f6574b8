"""The state of a processor after RESET, INIT and a startup IPI (APM 14.1.3, tables 14-1 and 14-2)."""

from typing import Final

from .bits import M16
from .descriptors import CODE_16, DATA_16, Attribute, SegmentState, SystemType, flat
from .layout import zero
from .registers import CR0, DR6, DR7, EFER, RFLAGS, Gprs
from .vmcb import SaveArea, Vmcb, load_segment

RESET_VECTOR: Final = 0xFFFF_FFF0
"""The physical address of the first instruction: the base of CS plus RIP."""

DEFAULT_PAT: Final = 0x0007_0406_0007_0406

# Attributes with the accessed bit set, and TR as a busy 32-bit TSS: the manual's table prints 092, 09A and
# 083; QEMU and Bochs load these, and a descriptor that a CPU has loaded looks like this.
_LDT: Final = Attribute.P | SystemType.LDT
_TSS: Final = Attribute.P | SystemType.TSS_32 | SystemType.BUSY


STARTUP_PAGE: Final = 12
"""A startup IPI's vector is the number of the page of 4 KiB where the CPU starts: below 1 MiB (APM 14.1.3, 16.5)."""


def reset(vmcb: Vmcb, gprs: Gprs, *, signature: int) -> None:
    """Write the state after RESET over the save area and the registers; the control area is left alone.

    `signature` is the family, model and stepping, as in EAX of CPUID function 1. EFER.SVME is set, which a
    real reset clears, because VMRUN demands it (APM 15.5.1).
    """
    save = vmcb.save
    zero(save)
    save.cr0 = CR0.CD | CR0.NW
    save.dr6 = DR6.FIXED
    save.dr7 = DR7.FIXED
    save.g_pat = DEFAULT_PAT
    init(vmcb, gprs, signature=signature)


def init(vmcb: Vmcb, gprs: Gprs, *, signature: int) -> None:
    """Write the state after INIT over the save area and the registers, as `reset` does.

    INIT leaves alone what the table calls not modified: CR0.CD and CR0.NW, debug registers, x87 and SSE, and the
    model-specific registers but EFER. The boot CPU starts at the reset vector; any other waits for a startup IPI.
    """
    save = vmcb.save
    for segment in (save.es, save.ss, save.ds, save.fs, save.gs):
        load_segment(segment, flat(0, DATA_16))
    load_segment(save.cs, SegmentState(0xF000, CODE_16, 0xFFFF, RESET_VECTOR & ~M16))
    load_segment(save.ldtr, flat(0, _LDT))
    load_segment(save.tr, flat(0, _TSS))
    for table in (save.gdtr, save.idtr):
        table.base, table.limit = 0, 0xFFFF
    save.efer = EFER.SVME
    save.cr0 = save.cr0 & (CR0.CD | CR0.NW) | CR0.ET
    save.cr2 = save.cr3 = save.cr4 = 0
    save.rflags = RFLAGS.ALWAYS_ONE
    save.rip = RESET_VECTOR & M16
    save.cpl = save.rsp = save.rax = 0
    zero(gprs)
    gprs.rdx = signature


def start_up(save: SaveArea, vector: int) -> None:
    """Let a CPU that an INIT stopped start at the page that a startup IPI names: CS = vector << 8, RIP = 0."""
    load_segment(save.cs, SegmentState(vector << 8, CODE_16, 0xFFFF, vector << STARTUP_PAGE))
    save.rip = 0
