"""Model-specific registers, and where their bits are in the permission map (APM 15.11, appendix A)."""

from typing import Final

APIC_BASE: Final = 0x0000_001B
SMI_COUNT: Final = 0x0000_0034
SYSENTER_CS: Final = 0x0000_0174
SYSENTER_ESP: Final = 0x0000_0175
SYSENTER_EIP: Final = 0x0000_0176
MCG_STATUS: Final = 0x0000_017A
DEBUG_CTL: Final = 0x0000_01D9
PAT: Final = 0x0000_0277
EFER: Final = 0xC000_0080
STAR: Final = 0xC000_0081
LSTAR: Final = 0xC000_0082
CSTAR: Final = 0xC000_0083
SFMASK: Final = 0xC000_0084
FS_BASE: Final = 0xC000_0100
GS_BASE: Final = 0xC000_0101
KERNEL_GS_BASE: Final = 0xC000_0102
TSC_AUX: Final = 0xC000_0103
VM_CR: Final = 0xC001_0114
IGNNE: Final = 0xC001_0115
SMM_CTL: Final = 0xC001_0116
VM_HSAVE_PA: Final = 0xC001_0117
SVM_KEY: Final = 0xC001_0118

VM_CR_R_INIT: Final = 1 << 1
VM_CR_LOCK: Final = 1 << 3
VM_CR_SVMDIS: Final = 1 << 4

MSRPM_SIZE: Final = 0x2000
IOPM_SIZE: Final = 0x3000

_RANGES: Final = ((0x0000_0000, 0x000), (0xC000_0000, 0x800), (0xC001_0000, 0x1000))
_RANGE_LENGTH: Final = 0x2000


def msrpm_bit(msr: int) -> int | None:
    """Return the number of an MSR's read bit in the map; the write bit is the next one.

    None: the map does not hold this MSR, and every access to it exits.
    """
    for first, byte in _RANGES:
        if first <= msr < first + _RANGE_LENGTH:
            return byte * 8 + (msr - first) * 2
    return None
