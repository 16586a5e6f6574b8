"""Descriptor tables, gates, task state and page tables of a program, all valid."""

import struct
from functools import cache
from typing import Final

from trapline.arch.descriptors import (
    CODE_16,
    CODE_32,
    CODE_64,
    DATA_16,
    DATA_32,
    DPL_SHIFT,
    RING_3,
    Attribute,
    GateType,
    SegmentState,
    SystemType,
)
from trapline.arch.encode import descriptor, far_pointer, gate, long_gate, long_tss, tss
from trapline.arch.paging import NX, RW, US, A, D, P
from trapline.arch.registers import CR0, CR4
from trapline.arch.vmcb import SaveArea, Segment, load_segment

from . import places
from .places import PAGE

(CODE_0, DATA_0, CODE_1, DATA_1, CODE_2, DATA_2, CODE_3, DATA_3, CONFORMING) = range(1, 10)
(CODE_32_3, CODE_32_0, CODE_16_0, DATA_16_3) = range(10, 14)
(EXPAND_DOWN, EXECUTE_ONLY, READ_ONLY, NOT_PRESENT, CALL_GATE) = range(14, 19)
LDT_INDEX, TSS_INDEX, OTHER_TSS, TASK_GATE, CODE_ABSENT = 20, 22, 24, 26, 27

LDT: Final = Attribute.P | SystemType.LDT
BUSY_TSS: Final = Attribute.P | SystemType.TSS_32 | SystemType.BUSY
_ALL: Final = 0xFFFF_FFFF

_WITH_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17))
_TRAPS: Final = frozenset((1, 3, 4))
_FROM_USER: Final = frozenset((3, 4, 5, 0x80, places.END_VECTOR))


def segments(mode: str) -> dict[int, tuple[int, int, int]]:
    """Return base, limit in bytes and attributes of each code and data segment, by index."""
    if mode == "pm16":
        code, data = (places.BASE, 0xFFFF, CODE_16), (places.BASE, 0xFFFF, DATA_16)
    else:
        code, data = (0, _ALL, CODE_64 if mode in ("long", "compat") else CODE_32), (0, _ALL, DATA_32)
    short = 0xFFFF if mode == "pm16" else 0xF_FFFF
    found = {
        index + 2 * ring: (base, limit, attributes | ring << DPL_SHIFT)
        for ring in range(4)
        for index, (base, limit, attributes) in ((CODE_0, code), (DATA_0, data))
    }
    found |= {
        CONFORMING: (code[0], code[1], code[2] | Attribute.CONFORMING),
        CODE_32_3: (0, _ALL, CODE_32 | RING_3),
        CODE_32_0: (0, _ALL, CODE_32),
        CODE_16_0: (places.BASE, 0xFFFF, CODE_16),
        DATA_16_3: (places.USER, 0xFFFF, DATA_16 | RING_3),
        EXPAND_DOWN: (0, 0x1_0FFF, DATA_32 | Attribute.EXPAND_DOWN | RING_3),
        EXECUTE_ONLY: (data[0], short, CODE_16 & ~Attribute.WRITABLE | Attribute.DB | RING_3),
        READ_ONLY: (data[0], short, DATA_16 & ~Attribute.WRITABLE | Attribute.DB | RING_3),
        NOT_PRESENT: (data[0], short, DATA_16 & ~Attribute.P | Attribute.DB | RING_3),
        CODE_ABSENT: (code[0], code[1], code[2] & ~Attribute.P | RING_3),
    }
    return found


def load(mode: str, register: Segment, index: int, rpl: int) -> None:
    """Load a segment register from the GDT."""
    base, limit, attributes = segments(mode)[index]
    load_segment(register, SegmentState(index << 3 | rpl, attributes, limit, base))


def _empty() -> bytes:
    """Return HLT everywhere, the end of a program where code is, zeros where tables are."""
    data = bytearray(b"\xf4" * places.SIZE)
    data[places.CODE : places.CODE + 2 * PAGE] = bytes((0xCD, places.END_VECTOR)) * PAGE
    for start in (places.IDT, places.GDT, places.LDT, places.TSS, places.TABLES, places.CLEAN):
        size = PAGE * (4 if start in (places.TABLES, places.CLEAN) else 1)
        data[start : start + size] = bytes(size)
    return bytes(data)


_EMPTY: Final = _empty()


class Arena:
    """The bytes of the arena, written by guest-physical address."""

    def __init__(self) -> None:
        self.data = bytearray(_EMPTY)

    def put(self, gpa: int, value: int, size: int = 8) -> None:
        """Write an integer."""
        self.data[gpa : gpa + size] = value.to_bytes(size, "little")

    def get(self, gpa: int, size: int = 8) -> int:
        """Read an integer."""
        return int.from_bytes(self.data[gpa : gpa + size], "little")

    def write(self, gpa: int, data: bytes) -> None:
        """Write bytes."""
        self.data[gpa : gpa + len(data)] = data


def descriptors(mode: str, arena: Arena, save: SaveArea) -> None:
    """Fill GDT, LDT and TSS, and point the registers at them."""
    long = mode in ("long", "compat")
    narrow = mode == "pm16"
    call, kind = (
        (SystemType.CALL_GATE_16, SystemType.TSS_16) if narrow else (SystemType.CALL_GATE_32, SystemType.TSS_32)
    )
    values = {index: descriptor(*row) for index, row in segments(mode).items()}
    values[CALL_GATE] = gate(CODE_0 << 3, _offset(mode, 0x80), call, dpl=3)
    values[TASK_GATE] = gate(OTHER_TSS << 3, 0, GateType.TASK, dpl=3)
    values[LDT_INDEX] = descriptor(places.LDT, places.TABLE_LIMIT, LDT)
    values[TSS_INDEX] = descriptor(places.TSS, 0x6F, Attribute.P | kind | SystemType.BUSY)
    values[OTHER_TSS] = descriptor(places.TSS, 0x6F, Attribute.P | kind)
    for table in (places.GDT, places.LDT):
        for index, value in values.items():
            if not (long and index == TASK_GATE):
                arena.put(table + 8 * index, value)
    save.gdtr.base, save.gdtr.limit = places.GDT, places.TABLE_LIMIT
    load_segment(save.ldtr, SegmentState(LDT_INDEX << 3, LDT, places.TABLE_LIMIT, places.LDT))
    # QEMU 7.2 aborts at a busy TSS in legacy mode and refuses ports by one in long mode: seg_helper.c,
    # get_ss_esp_from_tss and check_io; LTR leaves TR as it was before it sets the bit.
    load_segment(save.tr, SegmentState(TSS_INDEX << 3, Attribute.P | kind, 0x6F, places.TSS))
    if long:
        task = long_tss(places.TOPS[:3], [places.IST - 0x40 * number for number in range(7)])
    else:
        base = places.BASE if narrow else 0
        task = tss(kind, [(DATA_0 + 2 * ring << 3 | ring, top - base) for ring, top in enumerate(places.TOPS[:3])])
    arena.write(places.TSS, task)


def interrupts(mode: str, arena: Arena, save: SaveArea, *, skip: int | None) -> None:
    """Fill the IDT and write a handler for each vector.

    A handler pushes its vector, drops that and the error code, and returns `skip` bytes after the exception; with
    None it halts, as those of #DF and of the end always do.
    """
    save.idtr.base = places.IDT
    save.idtr.limit = 0x3FF if mode == "real" else 0xFFF if mode in ("long", "compat") else 0x7FF
    arena.write(places.IDT, _interrupts(mode, skip)[0])
    arena.write(places.HANDLERS, _interrupts(mode, skip)[1])


@cache
def _interrupts(mode: str, skip: int | None) -> tuple[bytes, bytes]:
    """Return the IDT and the handlers."""
    arena = Arena()
    for vector in range(256):
        at, offset = places.HANDLERS + places.STUB * vector, _offset(mode, vector)
        halts = skip is None or vector in (8, places.END_VECTOR)
        arena.write(at, b"\xf4" if halts else _stub(mode, vector, 0 if vector in _TRAPS or vector > 31 else skip or 0))
        dpl = 3 if vector in _FROM_USER else 0
        if mode == "real":
            arena.put(places.IDT + 4 * vector, far_pointer(places.HANDLERS >> 4, places.STUB * vector), 4)
        elif mode in ("long", "compat"):
            arena.put(places.IDT + 16 * vector, long_gate(CODE_0 << 3, offset, dpl=dpl), 16)
        else:
            kind = GateType.INTERRUPT_16 if mode == "pm16" else GateType.INTERRUPT_32
            arena.put(places.IDT + 8 * vector, gate(CODE_0 << 3, offset, kind, dpl=dpl))
    return (
        bytes(arena.data[places.IDT : places.IDT + PAGE]),
        bytes(arena.data[places.HANDLERS : places.HANDLERS + PAGE]),
    )


def _offset(mode: str, vector: int) -> int:
    """Return where a handler is in the handlers' code segment."""
    at = places.HANDLERS + places.STUB * vector
    return at - places.BASE if mode == "pm16" else at


def _stub(mode: str, vector: int, skip: int) -> bytes:
    coded = vector in _WITH_CODE and mode != "real"
    if mode in ("real", "pm16"):
        # push vector; add sp, n; push bp; push sp; pop bp; add word [bp+2], skip; pop bp; iret
        # MOV BP, SP has a byte that is IN, for a jump into its middle.
        return (
            b"\x68"
            + struct.pack("<H", vector)
            + b"\x83\xc4"
            + bytes((4 if coded else 2,))
            + (b"\x55\x54\x5d\x83\x46\x02" + bytes((skip,)) + b"\x5d\xcf")
        )
    if mode in ("long", "compat"):
        # push vector; add rsp, n; add qword [rsp], skip; iretq
        return (
            b"\x68"
            + struct.pack("<I", vector)
            + b"\x48\x83\xc4"
            + bytes((16 if coded else 8,))
            + (b"\x48\x83\x04\x24" + bytes((skip,)) + b"\x48\xcf")
        )
    # push vector; add esp, n; add dword [esp], skip; iret
    return (
        b"\x68"
        + struct.pack("<I", vector)
        + b"\x83\xc4"
        + bytes((8 if coded else 4,))
        + (b"\x83\x04\x24" + bytes((skip,)) + b"\xcf")
    )


def pages(mode: str, paging: str, arena: Arena, save: SaveArea, *, user_code: bool) -> None:
    """Map the arena to itself, and in long mode a second time at ALIAS."""
    root, second, third, last = (places.TABLES + PAGE * number for number in range(4))
    save.cr0 |= CR0.PG
    save.cr3 = root
    flags = P | RW | US | A
    wide = paging != "narrow"
    for gpa in range(0, places.SIZE, PAGE):
        entry = gpa | _rights(gpa, user_code=user_code, wide=wide)
        if wide:
            arena.put((last if paging == "four" else third) + 8 * (gpa >> 12), entry)
        else:
            arena.put(second + 4 * (gpa >> 12), entry & 0xFFFF_FFFF, 4)
    if not wide:
        arena.put(root, second | flags, 4)
        return
    save.cr4 |= CR4.PAE
    if paging == "pae":
        arena.put(root, second | P)
        arena.put(second, third | flags)
        return
    arena.put(root, second | flags)
    arena.put(root + 8 * 256, second | flags)
    arena.put(second, third | flags)
    arena.put(third, last | flags)


def _rights(gpa: int, *, user_code: bool, wide: bool) -> int:
    if gpa == places.ABSENT:
        return 0
    flags = P | RW | US | A | D
    if places.CODE <= gpa < places.CODE + 2 * PAGE:
        return flags if user_code else flags & ~US
    if gpa < places.TOPS[2] or gpa in (places.SUPERVISOR, places.SUPERVISOR_READ) or gpa >= places.TABLES:
        flags &= ~US
    if gpa in (places.USER_READ, places.SUPERVISOR_READ):
        flags &= ~(RW | D)
    if gpa == places.NO_EXECUTE and wide:
        flags |= NX
    if gpa == places.RESERVED and wide:
        flags |= 1 << 45
    return flags
