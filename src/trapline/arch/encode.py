"""Descriptors, gates, task-state segments and page tables built from their parts: the inverse of `descriptors`.

Descriptors, gates and table entries are ints, `to_bytes(size, "little")` in memory. ValueError: a part does not fit.
"""

from collections.abc import Mapping, Sequence

from .descriptors import (
    ATTRIBUTES_HIGH,
    ATTRIBUTES_LOW,
    DPL_SHIFT,
    IO_MAP_BASE,
    TSS_SIZE,
    Attribute,
    GateType,
    ist_offset,
    rsp_offset,
    stack_slot,
)
from .paging import ADDRESS, PAGE

_TSS_16_SIZE = 44


def descriptor(base: int, limit: int, attributes: int) -> int:
    """Return the 64 bits of a segment descriptor, or the low half of a system one of long mode (APM 4.7.1, 4.8.3).

    `limit` is the offset of the last byte; with Attribute.G its low 12 bits are ones.
    """
    units = limit
    if attributes & Attribute.G:
        units, rest = divmod(limit, PAGE)
        _check(rest == PAGE - 1, "the limit", limit)
    _check(0 <= units <= 0xF_FFFF, "the limit", limit)
    _check(0 <= base <= 0xFFFF_FFFF, "the base", base)
    _check(0 <= attributes <= 0xFFF, "the attributes", attributes)
    return (
        units & 0xFFFF
        | (base & 0xFF_FFFF) << 16
        | (attributes & 0xFF) << ATTRIBUTES_LOW
        | (units & 0xF_0000) << 32
        | (attributes & 0xF00) << ATTRIBUTES_HIGH
        | (base & 0xFF00_0000) << 32
    )


def flat_descriptor(attributes: int) -> int:
    """Return the descriptor of a segment from 0 on: of 4 GiB with Attribute.G, else of 64 KiB."""
    return descriptor(0, 0xFFFF_FFFF if attributes & Attribute.G else 0xFFFF, attributes)


def far_pointer(selector: int, offset: int) -> int:
    """Return the 32 bits of an entry of real mode's vector table (APM 8.6)."""
    _check(0 <= selector <= 0xFFFF, "the selector", selector)
    _check(0 <= offset <= 0xFFFF, "the offset", offset)
    return selector << 16 | offset


def gate(
    selector: int, offset: int, kind: int = GateType.INTERRUPT_32, *, dpl: int = 0, ist: int = 0, present: bool = True
) -> int:
    """Return the 64 bits of a legacy gate, or the low half of one of long mode, which alone has `ist` (APM 4.7.5)."""
    _check(0 <= selector <= 0xFFFF, "the selector", selector)
    _check(0 <= offset <= 0xFFFF_FFFF, "the offset", offset)
    _check(0 <= dpl <= 3, "the DPL", dpl)
    _check(0 <= ist <= 7, "the IST", ist)
    attributes = kind | dpl << DPL_SHIFT | (Attribute.P if present else 0)
    return offset & 0xFFFF | selector << 16 | ist << 32 | attributes << ATTRIBUTES_LOW | (offset & 0xFFFF_0000) << 32


def long_gate(
    selector: int, offset: int, kind: int = GateType.INTERRUPT_32, *, dpl: int = 0, ist: int = 0, present: bool = True
) -> int:
    """Return the 128 bits of a gate of long mode (APM 4.8.4)."""
    _check(0 <= offset < 1 << 64, "the offset", offset)
    return gate(selector, offset & 0xFFFF_FFFF, kind, dpl=dpl, ist=ist, present=present) | offset >> 32 << 64


def tss(kind: int, stacks: Sequence[tuple[int, int]]) -> bytes:
    """Return a legacy TSS of SystemType TSS_16 or TSS_32 with SS and SP of levels 0, 1 ...; no I/O map (APM 12.2.4)."""
    wide = kind & Attribute.WIDE_TSS
    data = bytearray(TSS_SIZE if wide else _TSS_16_SIZE)
    for level, (selector, pointer) in enumerate(stacks):
        offset, width = stack_slot(kind, level)
        data[offset : offset + width] = pointer.to_bytes(width, "little")
        data[offset + width : offset + 2 * width] = selector.to_bytes(width, "little")
    if wide:
        data[IO_MAP_BASE : IO_MAP_BASE + 2] = TSS_SIZE.to_bytes(2, "little")
    return bytes(data)


def long_tss(stacks: Sequence[int], interrupt_stacks: Sequence[int] = ()) -> bytes:
    """Return a TSS of long mode with RSP0, RSP1 ..., and with IST1, IST2 ...; no I/O map (APM 12.2.5)."""
    data = bytearray(TSS_SIZE)
    for level, pointer in enumerate(stacks):
        data[rsp_offset(level) : rsp_offset(level) + 8] = pointer.to_bytes(8, "little")
    for number, pointer in enumerate(interrupt_stacks, 1):
        data[ist_offset(number) : ist_offset(number) + 8] = pointer.to_bytes(8, "little")
    data[IO_MAP_BASE : IO_MAP_BASE + 2] = TSS_SIZE.to_bytes(2, "little")
    return bytes(data)


def pseudo_descriptor(base: int, limit: int, *, bits: int) -> bytes:
    """Return the operand of LGDT and LIDT: 6 bytes, or 10 in 64-bit code (APM 4.6.2)."""
    return limit.to_bytes(2, "little") + base.to_bytes(8 if bits == 64 else 4, "little")


def page_entry(gpa: int, flags: int) -> int:
    """Return an entry that leads to a page or a table at `gpa`, a multiple of 4 KiB (APM 5.2, 5.3)."""
    _check(gpa & ADDRESS == gpa, "the address", gpa)
    _check(not flags & ADDRESS, "the flags", flags)
    return gpa | flags


def page_table(entries: Mapping[int, int]) -> bytes:
    """Return a table of 512 entries of 64 bits, given by index; the others are not present."""
    data = bytearray(PAGE)
    for index, entry in entries.items():
        _check(0 <= index < PAGE // 8, "the index", index)
        data[8 * index : 8 * index + 8] = entry.to_bytes(8, "little")
    return bytes(data)


def _check(fits: bool, name: str, value: int) -> None:
    if not fits:
        raise ValueError(f"{name} {value:#x} does not fit")
