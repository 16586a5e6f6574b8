"""Values of MOV to CR0, CR3 and CR4 that raise #GP(0) (APM vol. 2, 3.1; vol. 3, MOV CRn).

`value` is what the instruction writes: 64 bits in 64-bit code, else 32.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

from .bits import M32
from .cpuid import CR4_FEATURES
from .registers import CR0, CR3, CR4, EFER
from .vmcb import SaveArea

Cpuid: TypeAlias = Callable[[int, int], tuple[int, int, int, int]]
"""Returns EAX to EDX of a function and subfunction."""

_ALWAYS: Final = CR4.PCE
"""Bits of CR4 that CPUID does not tell of."""


def supported_cr4(cpuid: Cpuid) -> int:
    """Return the bits of CR4 that a CPU has."""
    bits = _ALWAYS
    for bit, function, register, place in CR4_FEATURES:
        if cpuid(function, 0)[register] >> place & 1:
            bits |= bit
    return bits


def refuses_cr0(save: SaveArea, value: int, *, wide: bool) -> bool:
    """Say whether CR0 does not take a value; `wide`: in 64-bit code."""
    pages = bool(value & CR0.PG)
    return bool(
        value >> 32
        or (pages and not value & CR0.PE)
        or value & (CR0.NW | CR0.CD) == CR0.NW
        or (pages and not save.cr0 & CR0.PG and save.efer & EFER.LME and not save.cr4 & CR4.PAE)
        or (not pages and (wide or save.cr4 & CR4.PCIDE))
        or (not value & CR0.WP and save.cr4 & CR4.CET)
    )


def refuses_cr3(save: SaveArea, value: int, physical_bits: int) -> bool:
    """Say whether CR3 does not take a value: in long mode every bit above the physical address is reserved."""
    if save.cr4 & CR4.PCIDE:
        value &= ~CR3.KEEP_TLB
    return bool(save.efer & EFER.LMA and value >> physical_bits)


def refuses_cr4(save: SaveArea, value: int, supported: int) -> bool:
    """Say whether CR4 does not take a value; `supported` are the bits that the CPU has."""
    changed, long = value ^ save.cr4, save.efer & EFER.LMA
    return bool(
        value & ~supported
        or (long and (not value & CR4.PAE or changed & CR4.LA57))
        or (changed & value & CR4.PCIDE and (not long or save.cr3 & CR3.PCID))
        or (value & CR4.CET and not save.cr0 & CR0.WP)
    )


def write_cr0(save: SaveArea, value: int) -> None:
    """Write CR0, and with PG what EFER.LMA echoes (APM vol. 2, 14.6.1)."""
    save.cr0 = value & M32 | CR0.ET
    if save.cr0 & CR0.PG and save.efer & EFER.LME:
        save.efer |= EFER.LMA
    else:
        save.efer &= ~EFER.LMA
