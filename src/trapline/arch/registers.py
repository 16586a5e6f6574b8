"""Control, flag and debug registers bit by bit, and the order of the general registers.

Plain ints in classes: they are tested at every exit, where an IntFlag would cost many times as much.
"""

from typing import Final

from .layout import Structure, at, layout, u64


class CR0:
    """APM 3.1.1."""

    PE: Final = 1 << 0
    MP: Final = 1 << 1
    EM: Final = 1 << 2
    TS: Final = 1 << 3
    ET: Final = 1 << 4
    NE: Final = 1 << 5
    WP: Final = 1 << 16
    AM: Final = 1 << 18
    NW: Final = 1 << 29
    CD: Final = 1 << 30
    PG: Final = 1 << 31


class CR3:
    """With CR4.PCIDE (APM 5.5.1)."""

    PCID: Final = 0xFFF
    """The process-context identifier."""
    KEEP_TLB: Final = 1 << 63
    """Of the operand of a MOV: entries of the TLB stay. It is not stored."""


class CR4:
    """APM 3.1.3."""

    VME: Final = 1 << 0
    PVI: Final = 1 << 1
    TSD: Final = 1 << 2
    DE: Final = 1 << 3
    PSE: Final = 1 << 4
    PAE: Final = 1 << 5
    MCE: Final = 1 << 6
    PGE: Final = 1 << 7
    PCE: Final = 1 << 8
    OSFXSR: Final = 1 << 9
    OSXMMEXCPT: Final = 1 << 10
    UMIP: Final = 1 << 11
    LA57: Final = 1 << 12
    FSGSBASE: Final = 1 << 16
    PCIDE: Final = 1 << 17
    OSXSAVE: Final = 1 << 18
    SMEP: Final = 1 << 20
    SMAP: Final = 1 << 21
    PKE: Final = 1 << 22
    CET: Final = 1 << 23
    PKS: Final = 1 << 24
    """Of Intel's processors (SDM vol. 3, 2.5), and of QEMU's `-cpu max`."""


class EFER:
    """APM 3.1.7."""

    SCE: Final = 1 << 0
    LME: Final = 1 << 8
    LMA: Final = 1 << 10
    NXE: Final = 1 << 11
    SVME: Final = 1 << 12
    LMSLE: Final = 1 << 13
    FFXSR: Final = 1 << 14
    TCE: Final = 1 << 15
    MCOMMIT: Final = 1 << 17
    INTWB: Final = 1 << 18
    UAIE: Final = 1 << 20
    AIBRSE: Final = 1 << 21


class RFLAGS:
    """APM 3.1.6."""

    CF: Final = 1 << 0
    ALWAYS_ONE: Final = 1 << 1
    PF: Final = 1 << 2
    AF: Final = 1 << 4
    ZF: Final = 1 << 6
    SF: Final = 1 << 7
    TF: Final = 1 << 8
    IF: Final = 1 << 9
    DF: Final = 1 << 10
    OF: Final = 1 << 11
    IOPL_SHIFT: Final = 12
    IOPL: Final = 3 << IOPL_SHIFT
    NT: Final = 1 << 14
    RF: Final = 1 << 16
    VM: Final = 1 << 17
    AC: Final = 1 << 18
    VIF: Final = 1 << 19
    VIP: Final = 1 << 20
    ID: Final = 1 << 21
    STATUS: Final = OF | SF | ZF | AF | PF | CF
    """What arithmetic sets."""
    ALWAYS_ZERO: Final = 1 << 3 | 1 << 5 | 1 << 15 | -1 << 22


class MXCSR:
    """APM vol. 1, 4.2.2."""

    IE: Final = 1 << 0
    DE: Final = 1 << 1
    ZE: Final = 1 << 2
    OE: Final = 1 << 3
    UE: Final = 1 << 4
    PE: Final = 1 << 5
    DAZ: Final = 1 << 6
    IM: Final = 1 << 7
    DM: Final = 1 << 8
    ZM: Final = 1 << 9
    OM: Final = 1 << 10
    UM: Final = 1 << 11
    PM: Final = 1 << 12
    FZ: Final = 1 << 15
    MM: Final = 1 << 17
    """Operands need not be aligned."""


class DR6:
    """APM 13.1.1.3."""

    B0: Final = 1 << 0
    B1: Final = 1 << 1
    B2: Final = 1 << 2
    B3: Final = 1 << 3
    BLD: Final = 1 << 11
    """Clear when a bus lock was detected."""
    BD: Final = 1 << 13
    BS: Final = 1 << 14
    BT: Final = 1 << 15
    FIXED: Final = 0xFFFF_0FF0
    """The bits that read as one, which is also the value after RESET."""


class DR7:
    """APM 13.1.1.4."""

    L0: Final = 1 << 0
    G0: Final = 1 << 1
    L1: Final = 1 << 2
    G1: Final = 1 << 3
    L2: Final = 1 << 4
    G2: Final = 1 << 5
    L3: Final = 1 << 6
    G3: Final = 1 << 7
    ENABLES: Final = 0xFF
    """L0 to G3."""
    LE: Final = 1 << 8
    GE: Final = 1 << 9
    CONDITIONS_SHIFT: Final = 16
    """R/W0, 2 bits, and 4 bits higher that of each further breakpoint: 0 is the execution of an instruction."""
    FIXED: Final = 1 << 10
    """The bit that reads as one, which is also the value after RESET."""
    GD: Final = 1 << 13


@layout(size=0x80)
class Gprs(Structure):
    """The general registers in the order that instructions number them.

    RAX and RSP live in the save area of the VMCB while the guest runs.
    """

    rax: u64 = at(0x00)
    rcx: u64 = at(0x08)
    rdx: u64 = at(0x10)
    rbx: u64 = at(0x18)
    rsp: u64 = at(0x20)
    rbp: u64 = at(0x28)
    rsi: u64 = at(0x30)
    rdi: u64 = at(0x38)
    r8: u64 = at(0x40)
    r9: u64 = at(0x48)
    r10: u64 = at(0x50)
    r11: u64 = at(0x58)
    r12: u64 = at(0x60)
    r13: u64 = at(0x68)
    r14: u64 = at(0x70)
    r15: u64 = at(0x78)
