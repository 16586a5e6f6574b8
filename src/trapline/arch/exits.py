"""Exit codes and intercepts: one numbering (APM appendix C, 15.9-15.12).

The intercept words at the start of the VMCB are one space of bits, and the number of a bit in it, word * 32
+ bit, is the code of the exit it causes. So one enumeration serves both, and a name is written once.
"""

from enum import IntEnum
from typing import Final, Protocol, TypeAlias

from .vectors import mnemonic


class ExitCode(IntEnum):
    """Why VMRUN came back. Exception exits are `EXCEPTION_EXITS`: their names are those of the vectors."""

    READ_CR0 = 0x00
    READ_CR1 = 0x01
    READ_CR2 = 0x02
    READ_CR3 = 0x03
    READ_CR4 = 0x04
    READ_CR5 = 0x05
    READ_CR6 = 0x06
    READ_CR7 = 0x07
    READ_CR8 = 0x08
    READ_CR9 = 0x09
    READ_CR10 = 0x0A
    READ_CR11 = 0x0B
    READ_CR12 = 0x0C
    READ_CR13 = 0x0D
    READ_CR14 = 0x0E
    READ_CR15 = 0x0F
    WRITE_CR0 = 0x10
    WRITE_CR1 = 0x11
    WRITE_CR2 = 0x12
    WRITE_CR3 = 0x13
    WRITE_CR4 = 0x14
    WRITE_CR5 = 0x15
    WRITE_CR6 = 0x16
    WRITE_CR7 = 0x17
    WRITE_CR8 = 0x18
    WRITE_CR9 = 0x19
    WRITE_CR10 = 0x1A
    WRITE_CR11 = 0x1B
    WRITE_CR12 = 0x1C
    WRITE_CR13 = 0x1D
    WRITE_CR14 = 0x1E
    WRITE_CR15 = 0x1F
    READ_DR0 = 0x20
    READ_DR1 = 0x21
    READ_DR2 = 0x22
    READ_DR3 = 0x23
    READ_DR4 = 0x24
    READ_DR5 = 0x25
    READ_DR6 = 0x26
    READ_DR7 = 0x27
    READ_DR8 = 0x28
    READ_DR9 = 0x29
    READ_DR10 = 0x2A
    READ_DR11 = 0x2B
    READ_DR12 = 0x2C
    READ_DR13 = 0x2D
    READ_DR14 = 0x2E
    READ_DR15 = 0x2F
    WRITE_DR0 = 0x30
    WRITE_DR1 = 0x31
    WRITE_DR2 = 0x32
    WRITE_DR3 = 0x33
    WRITE_DR4 = 0x34
    WRITE_DR5 = 0x35
    WRITE_DR6 = 0x36
    WRITE_DR7 = 0x37
    WRITE_DR8 = 0x38
    WRITE_DR9 = 0x39
    WRITE_DR10 = 0x3A
    WRITE_DR11 = 0x3B
    WRITE_DR12 = 0x3C
    WRITE_DR13 = 0x3D
    WRITE_DR14 = 0x3E
    WRITE_DR15 = 0x3F
    INTR = 0x60
    NMI = 0x61
    SMI = 0x62
    INIT = 0x63
    VINTR = 0x64
    CR0_SEL_WRITE = 0x65
    IDTR_READ = 0x66
    GDTR_READ = 0x67
    LDTR_READ = 0x68
    TR_READ = 0x69
    IDTR_WRITE = 0x6A
    GDTR_WRITE = 0x6B
    LDTR_WRITE = 0x6C
    TR_WRITE = 0x6D
    RDTSC = 0x6E
    RDPMC = 0x6F
    PUSHF = 0x70
    POPF = 0x71
    CPUID = 0x72
    RSM = 0x73
    IRET = 0x74
    SWINT = 0x75
    """INT n, opcode CD; never INT3 or INTO."""
    INVD = 0x76
    PAUSE = 0x77
    HLT = 0x78
    INVLPG = 0x79
    INVLPGA = 0x7A
    IOIO = 0x7B
    MSR = 0x7C
    TASK_SWITCH = 0x7D
    FERR_FREEZE = 0x7E
    SHUTDOWN = 0x7F
    VMRUN = 0x80
    VMMCALL = 0x81
    VMLOAD = 0x82
    VMSAVE = 0x83
    STGI = 0x84
    CLGI = 0x85
    SKINIT = 0x86
    RDTSCP = 0x87
    ICEBP = 0x88
    WBINVD = 0x89
    MONITOR = 0x8A
    MWAIT = 0x8B
    MWAIT_ARMED = 0x8C
    XSETBV = 0x8D
    RDPRU = 0x8E
    EFER_WRITE_TRAP = 0x8F
    CR0_WRITE_TRAP = 0x90
    CR1_WRITE_TRAP = 0x91
    CR2_WRITE_TRAP = 0x92
    CR3_WRITE_TRAP = 0x93
    CR4_WRITE_TRAP = 0x94
    CR5_WRITE_TRAP = 0x95
    CR6_WRITE_TRAP = 0x96
    CR7_WRITE_TRAP = 0x97
    CR8_WRITE_TRAP = 0x98
    CR9_WRITE_TRAP = 0x99
    CR10_WRITE_TRAP = 0x9A
    CR11_WRITE_TRAP = 0x9B
    CR12_WRITE_TRAP = 0x9C
    CR13_WRITE_TRAP = 0x9D
    CR14_WRITE_TRAP = 0x9E
    CR15_WRITE_TRAP = 0x9F
    INVLPGB = 0xA0
    INVLPGB_ILLEGAL = 0xA1
    INVPCID = 0xA2
    MCOMMIT = 0xA3
    TLBSYNC = 0xA4
    BUS_LOCK = 0xA5
    IDLE_HLT = 0xA6

    # From here on a code has no intercept bit.
    NPF = 0x400
    AVIC_INCOMPLETE_IPI = 0x401
    AVIC_NOACCEL = 0x402
    VMGEXIT = 0x403
    INVALID = 0xFFFF_FFFF_FFFF_FFFF
    """-1: VMRUN refused the VMCB."""
    BUSY = 0xFFFF_FFFF_FFFF_FFFE
    IDLE_REQUIRED = 0xFFFF_FFFF_FFFF_FFFD
    INVALID_PMC = 0xFFFF_FFFF_FFFF_FFFC


Intercept: TypeAlias = ExitCode
"""An exit code read as the number of its intercept bit; `INTERCEPTS` are those that have one."""

EXCEPTION_EXITS: Final = range(0x40, 0x60)
"""Exit code 0x40 + vector, intercepted by a bit of the exception word."""


def exception_exit(vector: int) -> int:
    """Return the exit code of an intercepted exception."""
    return EXCEPTION_EXITS.start + vector


INTERCEPTS: Final[tuple[Intercept, ...]] = tuple(code for code in ExitCode if code < ExitCode.NPF)
"""All intercepts but the exceptions."""


class InterceptWords(Protocol):
    """The intercept words of a VMCB, as in `ControlArea`."""

    intercept_cr: int
    intercept_dr: int
    intercept_exceptions: int
    intercept_misc1: int
    intercept_misc2: int
    intercept_misc3: int


_WORDS: Final = (
    "intercept_cr",
    "intercept_dr",
    "intercept_exceptions",
    "intercept_misc1",
    "intercept_misc2",
    "intercept_misc3",
)
_NAMES: Final[dict[int, str]] = {code.value: code.name for code in ExitCode}


def exit_name(code: int) -> str:
    """Return the name of an exit; an unknown code is returned as "exit code 0x4ff"."""
    if code in EXCEPTION_EXITS:
        return f"exception {mnemonic(code - EXCEPTION_EXITS.start)}"
    return _NAMES.get(code) or f"exit code {code:#x}"


def is_intercepted(control: InterceptWords, intercept: int) -> bool:
    """Return whether the bit of an intercept (or of an exception's exit code) is set."""
    word, bit = _place(intercept)
    return bool(getattr(control, word) & bit)


def set_intercept(control: InterceptWords, intercept: int) -> None:
    """Set the bit of an intercept."""
    word, bit = _place(intercept)
    setattr(control, word, getattr(control, word) | bit)


def clear_intercept(control: InterceptWords, intercept: int) -> None:
    """Clear the bit of an intercept."""
    word, bit = _place(intercept)
    setattr(control, word, getattr(control, word) & ~bit)


def _place(intercept: int) -> tuple[str, int]:
    word, bit = divmod(intercept, 32)
    if not 0 <= word < len(_WORDS):
        raise ValueError(f"{exit_name(intercept)} has no intercept bit")
    return _WORDS[word], 1 << bit
