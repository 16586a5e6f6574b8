"""Descriptor tables, gates, task state and page tables of a program, all valid."""

import struct
from functools import cache
from typing import Final

from trapline.arch.descriptors import IO_MAP_BASE
from trapline.arch.paging import NX, RW, US, A, D, P
from trapline.arch.registers import CR0, CR4
from trapline.arch.vmcb import SaveArea, Segment

from . import places
from .places import PAGE

CODE: Final = 0x9B
DATA: Final = 0x93
G: Final = 0x800
DB: Final = 0x400
L: Final = 0x200

(CODE_0, DATA_0, CODE_1, DATA_1, CODE_2, DATA_2, CODE_3, DATA_3, CONFORMING, CODE_32_3, CODE_32_0, CODE_16, DATA_16) = (
    range(1, 14)
)
(EXPAND_DOWN, EXECUTE_ONLY, READ_ONLY, NOT_PRESENT, CALL_GATE) = range(14, 19)
LDT_INDEX, TSS_INDEX, OTHER_TSS, TASK_GATE, CODE_ABSENT = 20, 22, 24, 26, 27

_WITH_CODE: Final = frozenset((8, 10, 11, 12, 13, 14, 17))
_TRAPS: Final = frozenset((1, 3, 4))
_FROM_USER: Final = frozenset((3, 4, 5, 0x80, places.END_VECTOR))


def descriptor(base: int, limit: int, attributes: int) -> int:
    """Build a descriptor; the limit is its 20 bits, attributes are those of the VMCB."""
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | (attributes & 0xFF) << 40
        | (limit & 0xF0000) << 32
        | (attributes & 0xF00) << 44
        | (base >> 24 & 0xFF) << 56
    )


def gate(selector: int, offset: int, kind: int, *, dpl: int = 0, ist: int = 0) -> int:
    """Build the low half of a gate that is present."""
    return offset & 0xFFFF | selector << 16 | ist << 32 | (kind | dpl << 5 | 0x80) << 40 | (offset >> 16) << 48


def segments(mode: str) -> dict[int, tuple[int, int, int]]:
    """Return base, 20-bit limit and attributes of each code and data segment, by index."""
    if mode == "pm16":
        code, data = (places.BASE, 0xFFFF, CODE), (places.BASE, 0xFFFF, DATA)
    else:
        wide = L if mode in ("long", "compat") else DB
        code, data = (0, 0xFFFFF, CODE | G | wide), (0, 0xFFFFF, DATA | G | DB)
    found = {
        index + 2 * ring: (base, limit, attributes | ring << 5)
        for ring in range(4)
        for index, (base, limit, attributes) in ((CODE_0, code), (DATA_0, data))
    }
    found |= {
        CONFORMING: (code[0], code[1], code[2] | 4),
        CODE_32_3: (0, 0xFFFFF, CODE | G | DB | 0x60),
        CODE_32_0: (0, 0xFFFFF, CODE | G | DB),
        CODE_16: (places.BASE, 0xFFFF, CODE),
        DATA_16: (places.USER, 0xFFFF, DATA | 0x60),
        EXPAND_DOWN: (0, 0x10, 0x97 | G | DB | 0x60),
        EXECUTE_ONLY: (data[0], data[1], 0x99 | DB | 0x60),
        READ_ONLY: (data[0], data[1], 0x91 | DB | 0x60),
        NOT_PRESENT: (data[0], data[1], 0x13 | DB | 0x60),
        CODE_ABSENT: (code[0], code[1], code[2] & ~0x80 | 0x60),
    }
    return found


def set_segment(register: Segment, selector: int, base: int, limit: int, attributes: int) -> None:
    """Write a segment register with its hidden part."""
    register.selector, register.base, register.limit, register.attributes = selector, base, limit, attributes


def load(mode: str, register: Segment, index: int, rpl: int) -> None:
    """Load a segment register from the GDT."""
    base, limit, attributes = segments(mode)[index]
    set_segment(register, index << 3 | rpl, base, limit << 12 | 0xFFF if attributes & G else limit, attributes)


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
    values = {index: descriptor(*row) for index, row in segments(mode).items()}
    values[CALL_GATE] = gate(CODE_0 << 3, _offset(mode, 0x80), 12 if mode != "pm16" else 4, dpl=3)
    values[TASK_GATE] = gate(OTHER_TSS << 3, 0, 5, dpl=3)
    tss = 3 if mode == "pm16" else 11
    values[LDT_INDEX] = descriptor(places.LDT, places.TABLE_LIMIT, 0x82)
    values[TSS_INDEX] = descriptor(places.TSS, 0x6F, 0x80 | tss)
    values[OTHER_TSS] = descriptor(places.TSS, 0x6F, 0x80 | tss & ~2)
    for table in (places.GDT, places.LDT):
        for index, value in values.items():
            if not (long and index == TASK_GATE):
                arena.put(table + 8 * index, value)
    save.gdtr.base, save.gdtr.limit = places.GDT, places.TABLE_LIMIT
    set_segment(save.ldtr, LDT_INDEX << 3, places.LDT, places.TABLE_LIMIT, 0x82)
    # QEMU 7.2 aborts at a busy TSS in legacy mode and refuses ports by one in long mode: seg_helper.c,
    # get_ss_esp_from_tss and check_io; LTR leaves TR as it was before it sets the bit.
    set_segment(save.tr, TSS_INDEX << 3, places.TSS, 0x6F, 0x80 | tss & ~2)
    for ring, top in enumerate(places.TOPS[:3]):
        if long:
            arena.put(places.TSS + 4 + 8 * ring, top)
        elif mode == "pm16":
            arena.put(places.TSS + 2 + 4 * ring, top - places.BASE, 2)
            arena.put(places.TSS + 4 + 4 * ring, DATA_0 + 2 * ring << 3 | ring, 2)
        else:
            arena.put(places.TSS + 4 + 8 * ring, top, 4)
            arena.put(places.TSS + 8 + 8 * ring, DATA_0 + 2 * ring << 3 | ring, 4)
    if long:
        for number in range(7):
            arena.put(places.TSS + 0x24 + 8 * number, places.IST - 0x40 * number)
    if mode != "pm16":
        arena.put(places.TSS + IO_MAP_BASE, 0x68, 2)


def interrupts(mode: str, arena: Arena, save: SaveArea, *, skip: int | None) -> None:
    """Fill the IDT and write a handler for each vector.

    A handler pushes its vector, drops that and the error code, and returns `skip` bytes behind the exception; with
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
            arena.put(places.IDT + 4 * vector, places.HANDLERS >> 4 << 16 | places.STUB * vector, 4)
        elif mode in ("long", "compat"):
            arena.put(places.IDT + 16 * vector, gate(CODE_0 << 3, offset, 14, dpl=dpl))
        else:
            arena.put(places.IDT + 8 * vector, gate(CODE_0 << 3, offset, 6 if mode == "pm16" else 14, dpl=dpl))
    return (
        bytes(arena.data[places.IDT : places.IDT + PAGE]),
        bytes(arena.data[places.HANDLERS : places.HANDLERS + PAGE]),
    )


def _offset(mode: str, vector: int) -> int:
    """Return where a handler stands in the handlers' code segment."""
    at = places.HANDLERS + places.STUB * vector
    return at - places.BASE if mode == "pm16" else at


def _stub(mode: str, vector: int, skip: int) -> bytes:
    coded = vector in _WITH_CODE and mode != "real"
    if mode in ("real", "pm16"):
        # push vector; add sp, n; push bp; push sp; pop bp; add word [bp+2], skip; pop bp; iret
        # MOV BP, SP has a byte that is IN, for who jumps into its middle.
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
    """Map the arena where it stands, and in long mode a second time at ALIAS."""
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
