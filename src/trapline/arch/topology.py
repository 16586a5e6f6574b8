"""What CPUID shows of several CPUs: cores of one processor, each with one thread (APM vol. 3, appendix E)."""

from typing import Final

from .cpuid import EAX, EBX, ECX, EDX, FEATURES, SIZES

MOST_CPUS: Final = 8
_EXTENDED_TOPOLOGY: Final = 0x0000_000B
_IDENTIFIERS: Final = 0x8000_001E
_HTT: Final = 1 << 28
"""EDX of FEATURES: there is more than one logical processor."""
_THREADS, _CORES = 1, 2
"""Types of level in ECX 15:8 of _EXTENDED_TOPOLOGY."""

Answer = tuple[int, int, int, int]


def with_topology(answer: Answer, leaf: int, subleaf: int, *, apic_id: int, cpus: int) -> Answer:
    """Return the answer of a single CPU as that of one of several, whose local APIC has this id."""
    found = list(answer)
    id_bits = (cpus - 1).bit_length()
    if leaf == FEATURES:
        found[EBX] = found[EBX] & 0xFFFF | cpus << 16 | apic_id << 24
        found[EDX] |= _HTT
    elif leaf == _EXTENDED_TOPOLOGY:
        levels = ((0, 1, _THREADS), (id_bits, cpus, _CORES))
        shift, count, kind = levels[subleaf] if subleaf < len(levels) else (0, 0, 0)
        found[EAX], found[EBX], found[ECX], found[EDX] = shift, count, subleaf & 0xFF | kind << 8, apic_id
    elif leaf == SIZES:
        found[ECX] = found[ECX] & ~0xF0FF | cpus - 1 | id_bits << 12
    elif leaf == _IDENTIFIERS:
        found[EAX], found[EBX], found[ECX] = apic_id, apic_id, 0
    eax, ebx, ecx, edx = found
    return eax, ebx, ecx, edx
