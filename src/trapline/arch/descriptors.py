"""Selectors, segment and gate descriptors, and where a task-state segment keeps stacks (APM 4.5.1, 4.7, 4.8, 12.2).

A descriptor is its 64 bits as an int. Attributes are those of a VMCB segment: descriptor bits 47:40 in 7:0, bits 55:52
in 11:8 (APM 15.5.1).
"""

from typing import Final, NamedTuple


class Selector:
    """APM 4.5.1."""

    RPL: Final = 3 << 0
    TI: Final = 1 << 2
    """Set: the LDT. Clear: the GDT."""
    INDEX: Final = 0xFFF8
    """Also the offset of the descriptor in its table."""
    REFERENCE: Final = 0xFFFC
    """Zero in a null selector; what an error code keeps of a selector (APM 8.4.1)."""


class Attribute:
    """The attributes of a segment (APM 4.7, 4.8), with the type of a code or data segment bit by bit."""

    ACCESSED: Final = 1 << 0
    WRITABLE: Final = 1 << 1
    """Of data; of code: readable."""
    EXPAND_DOWN: Final = 1 << 2
    """Of data."""
    CONFORMING: Final = 1 << 2
    """Of code."""
    CODE: Final = 1 << 3
    S: Final = 1 << 4
    """Set: code or data. Clear: a system segment or a gate."""
    P: Final = 1 << 7
    L: Final = 1 << 9
    DB: Final = 1 << 10
    """D of code, B of data."""
    G: Final = 1 << 11
    TYPE: Final = 0xF
    WIDE_TSS: Final = 1 << 3
    """In the type of a legacy TSS: its fields have 32 bits."""


DPL_SHIFT: Final = 5
"""Of attributes."""
ATTRIBUTES_LOW: Final = 40
ATTRIBUTES_HIGH: Final = 44
"""How far attributes 7:0 and 11:8 are shifted in a descriptor."""
ACCESSED: Final = Attribute.ACCESSED << ATTRIBUTES_LOW
GATE_PRESENT: Final = Attribute.P << ATTRIBUTES_LOW
ACCESSED_BYTE: Final = 5
"""The byte of a descriptor that holds the accessed bit."""
_GRANULARITY: Final = 1 << 55


class GateType:
    """Bits 44:40 of a gate, S included (APM 4.7.5, 4.8.3)."""

    TASK: Final = 0x05
    INTERRUPT_16: Final = 0x06
    TRAP_16: Final = 0x07
    INTERRUPT_32: Final = 0x0E
    """In long mode: of 64 bits."""
    TRAP_32: Final = 0x0F
    """In long mode: of 64 bits."""
    WIDE: Final = 1 << 3
    TRAP: Final = 1 << 0
    """Clear: the handler starts with IF clear."""


class SegmentState(NamedTuple):
    """A segment register with its hidden part, as in the VMCB."""

    selector: int
    attributes: int
    limit: int
    base: int


def attributes(descriptor: int) -> int:
    """Return the attributes in the VMCB's form."""
    return descriptor >> ATTRIBUTES_LOW & 0xFF | descriptor >> ATTRIBUTES_HIGH & 0xF00


def base(descriptor: int) -> int:
    """Return the base, 32 bits (APM 4.7.1)."""
    return descriptor >> 16 & 0xFF_FFFF | descriptor >> 32 & 0xFF00_0000


def limit(descriptor: int) -> int:
    """Return the offset of the last byte, the granularity applied (APM 4.7.1)."""
    units = descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000
    return units << 12 | 0xFFF if descriptor & _GRANULARITY else units


def load(selector: int, descriptor: int) -> SegmentState:
    """Return the segment register that loading a code or data segment gives."""
    return SegmentState(selector, attributes(descriptor) | Attribute.ACCESSED, limit(descriptor), base(descriptor))


def gate_offset_32(gate: int) -> int:
    """Return the entry point in a legacy gate; of a 16-bit one only the low half counts (APM 4.7.5)."""
    return gate & 0xFFFF | gate >> 32 & 0xFFFF_0000


def gate_offset_64(low: int, high: int) -> int:
    """Return the entry point in the two halves of a gate of long mode (APM 4.8.4)."""
    return gate_offset_32(low) | (high & 0xFFFF_FFFF) << 32


class StackSlot(NamedTuple):
    """Where a legacy TSS keeps the stack of a privilege level: SP or ESP, and SS behind it."""

    offset: int
    width: int
    """Bytes of the stack pointer; SS fills as many."""


def stack_slot(tss_type: int, level: int) -> StackSlot:
    """Return the place of SS:SP for privilege level 0, 1 or 2 (APM 12.2.4)."""
    if tss_type & Attribute.WIDE_TSS:
        return StackSlot(4 + 8 * level, 4)
    return StackSlot(2 + 4 * level, 2)


def rsp_offset(level: int) -> int:
    """Return the place of RSP for a privilege level in a 64-bit TSS (APM 12.2.5)."""
    return 4 + 8 * level


def ist_offset(number: int) -> int:
    """Return the place of IST pointer 1 to 7 in a 64-bit TSS (APM 12.2.5)."""
    return 0x1C + 8 * number


IO_MAP_BASE: Final = 102
"""Offset in a 32-bit or 64-bit TSS of the word that holds the offset of the I/O map (APM 12.2.4, 12.2.5)."""
IO_MAP_TSS: Final = (0x9, 0xB)
"""The types of TSS that have such a map: available and busy."""
REDIRECTION_SIZE: Final = 32
"""Bytes of the interrupt-redirection bitmap, which ends where the I/O map begins (APM 12.2.4)."""
