"""CPUID: functions and feature bits (APM vol. 3, appendix E)."""

from typing import Final

from .registers import CR4, EFER

VENDOR: Final = 0x0000_0000
"""Function numbers: what EAX has before CPUID. EBX, EDX and ECX of this one: the vendor's name."""
FEATURES: Final = 0x0000_0001
STRUCTURED: Final = 0x0000_0007
XSAVE_AREAS: Final = 0x0000_000D
LARGEST_EXTENDED: Final = 0x8000_0000
"""EAX: the largest extended function; where there are none, a smaller number than this (APM vol. 3, E.4.1)."""
EXTENDED: Final = 0x8000_0001
SIZES: Final = 0x8000_0008
SVM: Final = 0x8000_000A
EXTENDED_2: Final = 0x8000_0021

EAX, EBX, ECX, EDX = range(4)
"""Places in an answer."""

OSXSAVE: Final = 1 << 27
"""ECX of FEATURES: CR4.OSXSAVE as it is."""
OSPKE: Final = 1 << 4
"""ECX of STRUCTURED, subfunction 0: CR4.PKE as it is."""
HAS_SVM: Final = 1 << 2
"""ECX of EXTENDED."""
LONG_MODE: Final = 1 << 29
"""EDX of EXTENDED."""
NO_LMSLE: Final = 1 << 20
"""EBX of SIZES: EFER.LMSLE cannot be set."""

EFER_FEATURES: Final = (
    (EFER.SCE, EXTENDED, EDX, 11),
    (EFER.LME, EXTENDED, EDX, 29),
    (EFER.NXE, EXTENDED, EDX, 20),
    (EFER.FFXSR, EXTENDED, EDX, 25),
    (EFER.TCE, EXTENDED, ECX, 17),
    (EFER.MCOMMIT, SIZES, EBX, 8),
    (EFER.INTWB, SIZES, EBX, 13),
    (EFER.UAIE, EXTENDED_2, EAX, 7),
    (EFER.AIBRSE, EXTENDED_2, EAX, 8),
)
"""The bits of EFER that can be set where CPUID reports a feature: function, register, bit (APM 3.1.7)."""

CR4_FEATURES: Final = (
    (CR4.VME, FEATURES, EDX, 1),
    (CR4.PVI, FEATURES, EDX, 1),
    (CR4.TSD, FEATURES, EDX, 4),
    (CR4.DE, FEATURES, EDX, 2),
    (CR4.PSE, FEATURES, EDX, 3),
    (CR4.PAE, FEATURES, EDX, 6),
    (CR4.MCE, FEATURES, EDX, 7),
    (CR4.PGE, FEATURES, EDX, 13),
    (CR4.OSFXSR, FEATURES, EDX, 24),
    (CR4.OSXMMEXCPT, FEATURES, EDX, 25),
    (CR4.UMIP, STRUCTURED, ECX, 2),
    (CR4.LA57, STRUCTURED, ECX, 16),
    (CR4.FSGSBASE, STRUCTURED, EBX, 0),
    (CR4.PCIDE, FEATURES, ECX, 17),
    (CR4.OSXSAVE, FEATURES, ECX, 26),
    (CR4.SMEP, STRUCTURED, EBX, 7),
    (CR4.SMAP, STRUCTURED, EBX, 20),
    (CR4.PKE, STRUCTURED, ECX, 3),
    (CR4.CET, STRUCTURED, ECX, 7),
    (CR4.PKS, STRUCTURED, ECX, 31),
)
"""The same for CR4, of subfunction 0 (APM 3.1.3; PKS: SDM vol. 2, CPUID)."""
