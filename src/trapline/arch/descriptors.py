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


CODE_16: Final = Attribute.P | Attribute.S | Attribute.CODE | Attribute.WRITABLE | Attribute.ACCESSED
"""Attributes of readable code and of writable data of ring 0 as a CPU has loaded them: of 16 bits, real mode's too."""
DATA_16: Final = Attribute.P | Attribute.S | Attribute.WRITABLE | Attribute.ACCESSED
CODE_32: Final = CODE_16 | Attribute.DB | Attribute.G
"""The same with a limit in pages, as flat segments have it."""
DATA_32: Final = DATA_16 | Attribute.DB | Attribute.G
CODE_64: Final = CODE_16 | Attribute.L | Attribute.G
RING_3: Final = 3 << DPL_SHIFT
"""Added to the attributes of a segment of CPL 3."""
VIRTUAL_8086: Final = DATA_16 | RING_3
"""Attributes of each segment in virtual-8086 mode (APM 4.12.3)."""


class SystemType:
    """Bits 43:40 of a descriptor whose S bit is clear (APM 4.7.4, 4.8.3), but for gates of events: see `GateType`."""

    TSS_16: Final = 0x1
    LDT: Final = 0x2
    CALL_GATE_16: Final = 0x4
    TSS_32: Final = 0x9
    """In long mode: of 64 bits."""
    CALL_GATE_32: Final = 0xC
    """In long mode: of 64 bits."""
    BUSY: Final = 1 << 1
    """In the type of a TSS: a task uses it."""


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


REAL_GATE_SIZE: Final = 4
"""Bytes of an entry of the IDT: in real mode (APM 8.6), in protected mode (4.7.5) and in long mode (4.8.4)."""
GATE_SIZE: Final = 8
LONG_GATE_SIZE: Final = 16
REAL_IDT_LIMIT: Final = 256 * REAL_GATE_SIZE - 1
"""The limit of real mode's vector table."""


class SegmentState(NamedTuple):
    """A segment register with its hidden part, as in the VMCB."""

    selector: int
    attributes: int
    limit: int
    base: int


def flat(selector: int, attributes: int) -> SegmentState:
    """Return a segment register with a segment from 0 on: of 4 GiB with Attribute.G, else of 64 KiB."""
    return SegmentState(selector, attributes, 0xFFFF_FFFF if attributes & Attribute.G else 0xFFFF, 0)


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


def gate_selector(gate: int) -> int:
    """Return the selector in a gate of any mode, of a long one in its low half (APM 4.7.5)."""
    return gate >> 16 & 0xFFFF


def gate_type(gate: int) -> int:
    """Return a `GateType`: the S bit and the type (APM 4.7.5)."""
    return gate >> ATTRIBUTES_LOW & 0x1F


def gate_offset_32(gate: int) -> int:
    """Return the entry point in a legacy gate; of a 16-bit one only the low half counts (APM 4.7.5)."""
    return gate & 0xFFFF | gate >> 32 & 0xFFFF_0000


def gate_offset_64(low: int, high: int) -> int:
    """Return the entry point in the two halves of a gate of long mode (APM 4.8.4)."""
    return gate_offset_32(low) | (high & 0xFFFF_FFFF) << 32


class StackSlot(NamedTuple):
    """Where a legacy TSS keeps the stack of a privilege level: SP or ESP, then SS."""

    offset: int
    width: int
    """Bytes of the stack pointer; SS fills as many."""


class TaskFields(NamedTuple):
    """Where a legacy TSS keeps the registers of its task (APM 12.2.4)."""

    size: int
    """Bytes up to the end of the last of these fields."""
    width: int
    """Bytes of EIP, the flags and a general register; the flags follow EIP."""
    cr3: int | None
    ip: int
    gprs: int
    """RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI."""
    segments: int
    """Selectors: ES, CS, SS, DS and, in a 32-bit TSS, FS, GS."""
    step: int
    """From a selector to the next."""
    segment_count: int
    ldt: int

    @property
    def flags(self) -> int:
        """EFLAGS, or FLAGS."""
        return self.ip + self.width

    @property
    def cs(self) -> int:
        """The second of the selectors."""
        return self.segments + self.step


_TASK_32: Final = TaskFields(0x68, 4, 0x1C, 0x20, 0x28, 0x48, 4, 6, 0x60)
_TASK_16: Final = TaskFields(0x2C, 2, None, 0x0E, 0x12, 0x22, 2, 4, 0x2A)


def task_fields(tss_type: int) -> TaskFields:
    """Return the layout of a legacy TSS by its type."""
    return _TASK_32 if tss_type & Attribute.WIDE_TSS else _TASK_16


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


BACK_LINK: Final = 0
"""The place of the previous task's selector in a legacy TSS (APM 12.2.4)."""
TSS_SIZE: Final = 104
"""Bytes of a 32-bit or 64-bit TSS without an I/O map (APM 12.2.4, 12.2.5)."""
IO_MAP_BASE: Final = 102
"""Offset in a 32-bit or 64-bit TSS of the 16 bits that hold the offset of the I/O map (APM 12.2.4, 12.2.5)."""
IO_MAP_TSS: Final = (SystemType.TSS_32, SystemType.TSS_32 | SystemType.BUSY)
"""The types of TSS that have such a map: available and busy."""
REDIRECTION_SIZE: Final = 32
"""Bytes of the interrupt-redirection bitmap, which ends where the I/O map begins (APM 12.2.4)."""
