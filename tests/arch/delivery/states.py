"""Processor states that deliver an event, in every mode, and mutations that may keep them from it.

All that a delivery touches stands in an arena of 17 pages at ARENA, which is mapped at `World.linear` + ARENA where
paging is on. Around it, low memory is full of HLT, where all handlers are.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from trapline.arch.events import Event, EventType
from trapline.arch.paging import NX, PS, RW, US, A, D, P
from trapline.arch.registers import CR0, CR4, DR6, DR7, EFER, RFLAGS
from trapline.arch.vmcb import SaveArea

ARENA = 0x10000
SIZE = 0x11000
LOW_MEMORY = 0x80000
RAM = 16 << 20
HLT = 0xF4
HANDLERS = 0x30000
PHYSICAL_BITS = 40

IDT, GDT, LDT, TSS = (ARENA + page * 0x1000 for page in range(4))
STACKS = range(ARENA + 0x4000, ARENA + 0xA000)
ROOT, PML4, PDPT, PD, PT = (ARENA + page * 0x1000 for page in range(10, 15))
TABLE_LIMIT = 0xFF

MODES = ("real", "protected16", "protected32", "v86", "long", "compat")
CODED = (8, 10, 11, 12, 13, 14, 17)
"""Vectors that QEMU pushes an error code for."""


class Memory:
    """The arena, HLT around it and zeros above 1 MiB, as the model reads them."""

    def __init__(self, data):
        self.data = data

    def _bytes(self, gpa, size):
        if ARENA <= gpa <= ARENA + SIZE - size:
            return self.data[gpa - ARENA : gpa - ARENA + size]
        return bytes(self._byte(gpa + offset) for offset in range(size))

    def _byte(self, gpa):
        if ARENA <= gpa < ARENA + SIZE:
            return self.data[gpa - ARENA]
        if gpa < LOW_MEMORY:
            return HLT
        return 0 if 1 << 20 <= gpa < RAM else 0xFF

    def u32(self, gpa):
        return int.from_bytes(self._bytes(gpa, 4), "little")

    def u64(self, gpa):
        return int.from_bytes(self._bytes(gpa, 8), "little")


@dataclass(slots=True)
class World:
    """One case: a state, an event, and the arena."""

    mode: str
    rng: random.Random
    save: SaveArea
    data: bytearray
    linear: int = 0
    paging: str = ""
    event: Event | None = None
    vector: int = 0
    mutations: tuple = ()

    def put(self, gpa, value, size=8):
        assert ARENA <= gpa <= ARENA + SIZE - size
        self.data[gpa - ARENA : gpa - ARENA + size] = value.to_bytes(size, "little")

    def get(self, gpa, size=8):
        return int.from_bytes(self.data[gpa - ARENA : gpa - ARENA + size], "little")

    @property
    def long(self):
        return self.mode in ("long", "compat")

    @property
    def gate_at(self):
        return IDT + self.vector * (16 if self.long else 4 if self.mode == "real" else 8)

    @property
    def selector(self):
        return self.get(self.gate_at) >> 16 & 0xFFFF

    @property
    def code_at(self):
        return descriptor_at(self.selector)

    @property
    def memory(self):
        return Memory(self.data)


def descriptor_at(selector):
    return (LDT if selector & 4 else GDT) + (selector & 0xF8)


def descriptor(base, limit, attributes):
    """Build a descriptor; the limit is that of the descriptor's 20 bits, attributes those of the VMCB."""
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | (attributes & 0xFF) << 40
        | (limit & 0xF0000) << 32
        | (attributes & 0xF00) << 44
        | (base >> 24) << 56
    )


def gate(selector, offset, kind, *, dpl=0, present=1, ist=0):
    """Build the low half of a gate."""
    return (
        offset & 0xFFFF
        | selector << 16
        | ist << 32
        | (kind | dpl << 5 | present << 7) << 40
        | (offset >> 16 & 0xFFFF) << 48
    )


CONFORMING_0, CONFORMING_1, CODE_16, DATA_16, DATA_16_1, DATA_16_2, USER_DATA_16, DOWN_32, DOWN_16, CODE_32 = range(
    9, 19
)
"""Indices in both tables, behind code and data of each ring."""
CODE, DATA = 0x9B, 0x93
G, DB, L = 0x800, 0x400, 0x200


def _segments(world):
    """Return the descriptors that stand in both tables, by index."""
    base = world.linear & 0xFFFFFFFF
    code = G | L if world.long else G | DB
    both = []
    for dpl in (0, 1, 2, 3):
        both += [
            (0 if world.long else base, 0xFFFFF, CODE | code | dpl << 5),
            (base, 0xFFFFF, DATA | G | DB | dpl << 5),
        ]
    both += [
        (0 if world.long else base, 0xFFFFF, 0x9F | code),  # conforming, ring 0
        (0 if world.long else base, 0xFFFFF, 0x9F | code | 1 << 5),  # conforming, ring 1
        (base + HANDLERS, 0xFFFF, CODE),  # 16-bit code
        (base + ARENA, 0xFFFF, DATA),  # 16-bit data, ring 0
        *((base + ARENA, 0xFFFF, DATA | dpl << 5) for dpl in (1, 2, 3)),  # 16-bit data, ring 3
        (base, 0x00000, 0x97 | G | DB),  # expand-down, ring 0
        (base + ARENA, 0x3FFF, 0x97),  # expand-down of 16 bits, ring 0
        (base, 0xFFFFF, CODE | G | DB),  # 32-bit code, also in long mode
    ]
    return both


def _segment(register, selector, base, limit, attributes):
    register.selector, register.base, register.limit, register.attributes = selector, base, limit, attributes


def _load(world, register, index, rpl):
    """Load a segment register from the GDT."""
    base, limit, attributes = _segments(world)[index - 1]
    _segment(register, index << 3 | rpl, base, limit << 12 | 0xFFF if attributes & G else limit, attributes)


def code_index(dpl):
    return 1 + 2 * dpl


def data_index(dpl):
    return 2 + 2 * dpl


def _tables(world):
    base = world.linear
    save = world.save
    for number, (start, limit, attributes) in enumerate(_segments(world), 1):
        value = descriptor(start, limit, attributes)
        world.put(GDT + 8 * number, value)
        world.put(LDT + 8 * number, value)
    save.gdtr.base, save.gdtr.limit = base + GDT, TABLE_LIMIT
    _segment(save.ldtr, 0x88, base + LDT, TABLE_LIMIT, 0x82)
    save.idtr.base, save.idtr.limit = base + IDT, 0xFFF


LINEARS = {
    "none": (0,),
    "narrow": (0x4000_0000, 0xC000_0000, 0x8000_0000),
    "pae": (0x4000_0000, 0xC000_0000, 0x8000_0000),
    "four": (0xFFFF_8000_0000_0000, 0x7FFF_C000_0000, 0x1234_8000_0000, 0xFFFF_FFFF_8000_0000),
    "five": (0xFF00_0000_0000_0000, 0xFFFF_8000_0000_0000, 0x12_1234_8000_0000),
}
FLAGS = P | RW | A | D


def _pages(world):
    """Map the low 2 MiB (4 MiB) at `linear`, in small pages."""
    save, base = world.save, world.linear
    if world.paging == "none":
        return
    save.cr0 |= CR0.PG
    if world.paging == "narrow":
        save.cr3 = ROOT
        world.put(ROOT + 4 * (base >> 22), PT | FLAGS, 4)
        world.data[PT - ARENA : PT - ARENA + 0x1000] = _NARROW_PT
        return
    world.data[PT - ARENA : PT - ARENA + 0x1000] = _WIDE_PT
    world.put(PD + 8 * (base >> 21 & 0x1FF), PT | FLAGS)
    if world.paging == "pae":
        save.cr4 |= CR4.PAE
        save.cr3 = PDPT
        world.put(PDPT + 8 * (base >> 30), PD | P)
        return
    save.cr4 |= CR4.PAE
    world.put(PDPT + 8 * (base >> 30 & 0x1FF), PD | FLAGS)
    world.put(PML4 + 8 * (base >> 39 & 0x1FF), PDPT | FLAGS)
    save.cr3 = PML4
    if world.paging == "five":
        save.cr4 |= CR4.LA57
        world.put(ROOT + 8 * (base >> 48 & 0x1FF), PML4 | FLAGS)
        save.cr3 = ROOT


_NARROW_PT = struct.pack("<1024I", *(page << 12 | FLAGS for page in range(1024)))
_WIDE_PT = struct.pack("<512Q", *(page << 12 | FLAGS for page in range(512)))

_RFLAGS = (
    RFLAGS.CF
    | RFLAGS.PF
    | RFLAGS.ZF
    | RFLAGS.TF
    | RFLAGS.IF
    | RFLAGS.DF
    | RFLAGS.IOPL
    | RFLAGS.NT
    | RFLAGS.RF
    | RFLAGS.AC
    | RFLAGS.ID
)


def _event(rng, mode):
    roll = rng.random()
    if roll < 0.55:
        vector = rng.choice((0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 21, 29))
        return Event(vector, EventType.EXCEPTION, rng.getrandbits(16) if vector in CODED else None)
    if roll < 0.75:
        return Event(rng.randrange(256), EventType.SOFT)
    if roll < 0.95:
        return Event(rng.randrange(256), EventType.INTR)
    return Event(2, EventType.NMI)


def _stack_top(rng):
    """Return the place of a stack, often near the edge of a page."""
    if rng.random() < 0.5:
        return rng.randrange(STACKS.start + 0x100, STACKS.stop, 2)
    return rng.choice((0x5000, 0x6000, 0x7000, 0x9000)) + ARENA + rng.randrange(-8, 64)


def make(mode, rng):
    """Return a state that is all right, but for what the random numbers did."""
    world = World(mode, rng, SaveArea(), bytearray(SIZE))
    save = world.save
    world.event = _event(rng, mode)
    world.vector = world.event.vector
    save.cr0 = CR0.PE | CR0.ET
    save.efer = EFER.SVME
    save.dr6, save.dr7 = DR6.FIXED, DR7.FIXED
    save.rflags = rng.getrandbits(22) & _RFLAGS | RFLAGS.ALWAYS_ONE
    _BUILDERS[mode](world)
    count = rng.choice((0, 1, 1, 1, 2, 2, 3))
    chosen = rng.sample(_MUTATIONS[mode], count)
    chosen.sort(key=lambda mutation: mutation is table_base)  # the others find the tables where they stand
    world.mutations = tuple(mutation.__name__ for mutation in chosen)
    for mutation in chosen:
        mutation(world)
    return world


def _real(world):
    save, rng = world.save, world.rng
    save.cr0 = CR0.ET
    save.idtr.base, save.idtr.limit = IDT, 0x3FF
    for register in (save.es, save.ds, save.fs, save.gs):
        _segment(register, 0x1000, 0x10000, 0xFFFF, DATA)
    _segment(save.cs, 0x3000, 0x30000, 0xFFFF, CODE)
    _segment(save.ss, 0x1000, 0x10000, 0xFFFF, DATA)
    _segment(save.ldtr, 0, 0, 0xFFFF, 0x82)
    _segment(save.tr, 0, 0, 0xFFFF, 0x8B)
    save.rip = rng.getrandbits(16)
    save.rsp = rng.getrandbits(16) | rng.choice((0, 0, 0xABCD_0000))
    world.put(world.gate_at, rng.choice((0x3000, 0x3456, 0x4000)) << 16 | rng.getrandbits(16), 4)


def _prepare(world, pagings):
    save, rng = world.save, world.rng
    world.paging = rng.choice(pagings)
    world.linear = rng.choice(LINEARS[world.paging])
    if rng.random() < 0.5:
        save.cr0 |= CR0.WP
    if rng.random() < 0.5:
        save.efer |= EFER.NXE
    save.cr4 |= rng.choice((0, CR4.PSE)) | rng.choice((0, CR4.SMEP)) | rng.choice((0, CR4.PGE))
    if rng.random() < 0.4:
        save.cr4 |= CR4.SMAP
    if world.long:
        save.efer |= EFER.LME | EFER.LMA
    _tables(world)
    _pages(world)


def _protected(world):
    rng, save = world.rng, world.save
    _prepare(world, ("none", "narrow", "pae"))
    cpl = save.cpl = rng.choice((0, 0, 0, 3, 3, 1, 2))
    narrow = world.mode == "protected16"
    _load(world, save.cs, code_index(cpl), cpl)
    _load(world, save.ss, data_index(cpl), cpl)
    for register in (save.ds, save.es, save.fs, save.gs):
        _load(world, register, data_index(3), 3)
    if cpl in (0, 3) and rng.random() < 0.4:
        _load(world, save.ss, USER_DATA_16 if cpl else DATA_16, cpl)
    _legacy_tss(world, narrow=rng.random() < 0.3)
    save.rip = rng.getrandbits(32)
    save.rsp = world.linear + _stack_top(rng) - save.ss.base & 0xFFFF_FFFF
    target = rng.choice([dpl for dpl in (0, 0, 0, 1, 2, 3) if dpl <= cpl])
    _legacy_gate(world, target, narrow=narrow)


def _legacy_gate(world, target, *, narrow):
    rng = world.rng
    index = rng.choice(
        (code_index(target),) * 4
        + ((CONFORMING_0,) if world.mode != "v86" else ())
        + ((CODE_16,) if target == 0 else ())
    )
    selector = index << 3 | rng.choice((0, 0, 0, 4)) | rng.choice((0, 0, 3))
    offset = HANDLERS + rng.getrandbits(16) if index != CODE_16 else rng.getrandbits(16)
    if narrow:
        offset &= 0xFFFF
    kind = rng.choice((6, 7) if narrow else (14, 15))
    world.put(world.gate_at, gate(selector, offset, kind, dpl=rng.choice((0, 3, 3, 3))))


def _legacy_tss(world, *, narrow):
    rng, save = world.rng, world.save
    _segment(save.tr, 0x90, world.linear + TSS + rng.choice((0, 0, 4, 0xFC0)), 0x67, 0x81 if narrow else 0x89)
    for level in (0, 1, 2):
        top = world.linear + _stack_top(rng)
        index = data_index(level)
        if level == 0:
            index = rng.choice((index, index, DATA_16, DOWN_32, DOWN_16))
        base = _segments(world)[index - 1][0]
        at = save.tr.base - world.linear + (2 + 4 * level if narrow else 4 + 8 * level)
        if narrow:
            world.put(at, top - base & 0xFFFF, 2)
            world.put(at + 2, index << 3 | level, 2)
            if index not in (DATA_16, DOWN_16):  # 16 bits of a flat segment do not reach the arena
                base = world.linear + ARENA
                world.put(at, top - base & 0xFFFF, 2)
                world.put(at + 2, DATA_16 + level << 3 | level, 2)
        else:
            world.put(at, top - base & 0xFFFF_FFFF, 4)
            world.put(at + 4, index << 3 | level, 2)


def _v86(world):
    rng, save = world.rng, world.save
    _prepare(world, ("none", "narrow", "pae"))
    save.cpl = 3
    save.rflags |= RFLAGS.VM
    if world.event.type == EventType.SOFT or rng.random() < 0.5:
        save.rflags |= RFLAGS.IOPL
    for register in (save.cs, save.ss, save.ds, save.es, save.fs, save.gs):
        selector = rng.getrandbits(16)
        _segment(register, selector, selector << 4, 0xFFFF, 0xF3)
    _legacy_tss(world, narrow=rng.random() < 0.2)
    save.rip, save.rsp = rng.getrandbits(16), rng.getrandbits(16)
    _legacy_gate(world, 0, narrow=rng.random() < 0.3)


def _long(world):
    rng, save = world.rng, world.save
    _prepare(world, ("four", "four", "five"))
    cpl = save.cpl = rng.choice((0, 0, 3, 3, 3, 1, 2))
    compat = world.mode == "compat"
    if compat:
        _load(world, save.cs, CODE_32, cpl)
        save.cs.attributes = save.cs.attributes | cpl << 5
    else:
        _load(world, save.cs, code_index(cpl), cpl)
    _load(world, save.ss, data_index(cpl), cpl)
    if cpl == 0 and not compat and rng.random() < 0.3:
        _segment(save.ss, 0, 0, 0, 0)
    for register in (save.ds, save.es, save.fs, save.gs):
        _load(world, register, data_index(3), 3)
    _segment(save.tr, 0x90, world.linear + TSS + rng.choice((0, 0, 4, 0xFD0)), 0x67, 0x8B)
    start = save.tr.base - world.linear
    for offset in (4, 12, 20, *range(0x24, 0x5C, 8)):
        world.put(start + offset, world.linear + _stack_top(rng) & (1 << 64) - 1)
    save.rip = rng.getrandbits(32) if compat else world.linear + rng.getrandbits(20)
    save.rsp = world.linear + _stack_top(rng)
    target = rng.choice([dpl for dpl in (0, 0, 0, 0, 1, 2, 3) if dpl <= cpl])
    index = rng.choice((*(code_index(target),) * 5, CONFORMING_0, *((CONFORMING_1,) if cpl else ())))
    selector = index << 3 | rng.choice((0, 0, 0, 4)) | rng.choice((0, 0, 3))
    rip = world.linear + HANDLERS + rng.getrandbits(16)
    ist = rng.choice((0, 0, 0, 1, 2, 3, 7))
    world.put(
        world.gate_at, gate(selector, rip & 0xFFFF_FFFF, rng.choice((14, 15)), dpl=rng.choice((0, 3, 3)), ist=ist)
    )
    world.put(world.gate_at + 8, rip >> 32)


_BUILDERS = {
    "real": _real,
    "protected16": _protected,
    "protected32": _protected,
    "v86": _v86,
    "long": _long,
    "compat": _long,
}


def plain(mode, event, *, paging=None, cpl=0, target=0, linear=None, kind=None, dpl=3, ist=0):
    """Return a state that delivers, without any chance in it; the stacks of the TSS start at the ends of pages."""
    world = World(mode, random.Random(0), SaveArea(), bytearray(SIZE))
    save = world.save
    world.event, world.vector = event, event.vector
    save.cr0, save.efer, save.rflags = CR0.PE | CR0.ET, EFER.SVME, RFLAGS.ALWAYS_ONE | RFLAGS.IF | RFLAGS.TF | RFLAGS.NT
    save.cpl = cpl
    save.rip = 0x1234
    if mode == "real":
        _real(world)
        save.rip, save.rsp = 0x1234, 0x5000
        world.put(world.gate_at, 0x3000_0456, 4)
        return world
    world.paging = paging or ("four" if world.long else "narrow")
    world.linear = LINEARS[world.paging][0] if linear is None else linear
    save.cr0 |= CR0.WP
    save.efer |= EFER.NXE | (EFER.LME | EFER.LMA if world.long else 0)
    _tables(world)
    _pages(world)
    base = world.linear
    wide = mode != "protected16"
    _segment(save.tr, 0x90, base + TSS, 0x67, 0x8B if wide else 0x83)
    if mode == "v86":
        save.cpl = 3
        save.rflags |= RFLAGS.VM | RFLAGS.IOPL
        for number, register in enumerate((save.cs, save.ss, save.ds, save.es, save.fs, save.gs), 1):
            _segment(register, 0x1000 * number, 0x10000 * number, 0xFFFF, 0xF3)
        save.rsp = 0x8000
    else:
        _load(world, save.cs, CODE_32 if mode == "compat" else code_index(cpl), cpl)
        _load(world, save.ss, data_index(cpl), cpl)
        for register in (save.ds, save.es, save.fs, save.gs):
            _load(world, register, data_index(3), 3)
        save.rsp = base + STACKS.start + 0x800 - (0 if world.long else save.ss.base)
    for level in (0, 1, 2):
        top = base + STACKS.start + 0x1000 * (level + 2)
        if world.long:
            world.put(TSS + 4 + 8 * level, top)
        elif wide:
            world.put(TSS + 4 + 8 * level, top - (base & 0xFFFF_FFFF) & 0xFFFF_FFFF, 4)
            world.put(TSS + 8 + 8 * level, data_index(level) << 3 | level, 2)
        else:
            world.put(TSS + 2 + 4 * level, top - base - ARENA, 2)
            world.put(TSS + 4 + 4 * level, DATA_16 + level << 3 | level, 2)
    for number in range(1, 8) if world.long else ():
        world.put(TSS + 0x1C + 8 * number, base + STACKS.start + 0x5000 + 0x10 * number)
    offset = base + HANDLERS + 0x456 if world.long else HANDLERS + 0x456 if wide else 0x3456
    kind = kind or (14 if wide else 6)
    world.put(world.gate_at, gate(code_index(target) << 3, offset & 0xFFFF_FFFF, kind, dpl=dpl, ist=ist))
    if world.long:
        world.put(world.gate_at + 8, offset >> 32)
    return world


# -- mutations ---------------------------------------------------------------------------------------------------------


def _flip(world, gpa, bits, size=8):
    world.put(gpa, world.get(gpa, size) ^ bits, size)


def gate_type(world):
    value = world.get(world.gate_at) & ~(0x1F << 40)
    world.put(world.gate_at, value | world.rng.getrandbits(5) << 40)


def gate_absent(world):
    _flip(world, world.gate_at, 1 << 47)


def gate_dpl(world):
    value = world.get(world.gate_at) & ~(3 << 45)
    world.put(world.gate_at, value | world.rng.getrandbits(2) << 45)


def gate_selector(world):
    """Any selector, null and beyond the tables included."""
    selector = (
        world.rng.choice((0, 3, 0x100, 0x10C, 0xFFF8, 4)) if world.rng.random() < 0.4 else world.rng.getrandbits(8)
    )
    value = world.get(world.gate_at) & ~(0xFFFF << 16)
    world.put(world.gate_at, value | selector << 16)


def idt_limit(world):
    size = 16 if world.long else 4 if world.mode == "real" else 8
    world.save.idtr.limit = max(0, world.vector * size + world.rng.randrange(-1, size + 1))


def gdt_limit(world):
    world.save.gdtr.limit = max(0, (world.selector & 0xFFF8) + world.rng.randrange(-1, 9))


def ldt_limit(world):
    world.save.ldtr.limit = max(0, (world.selector & 0xFFF8) + world.rng.randrange(-1, 9))


def code_type(world):
    value = world.get(world.code_at) & ~(0x1F << 40)
    world.put(world.code_at, value | (world.rng.getrandbits(5) | 1) << 40)


def code_dpl(world):
    value = world.get(world.code_at) & ~(3 << 45)
    world.put(world.code_at, value | world.rng.getrandbits(2) << 45)


def code_absent(world):
    _flip(world, world.code_at, 1 << 47)


def code_l_d(world):
    value = world.get(world.code_at) & ~(3 << 53)
    world.put(world.code_at, value | world.rng.getrandbits(2) << 53)


def code_not_accessed(world):
    _flip(world, world.code_at, 1 << 40)


def code_limit(world):
    """A limit in bytes that the handler is behind, on or in front of."""
    offset = world.get(world.gate_at) & 0xFFFF | world.get(world.gate_at) >> 32 & 0xF0000
    value = world.get(world.code_at) & ~(0xFFFF | 0xF << 48 | 1 << 55)
    limit = max(0, offset + world.rng.randrange(-1, 2)) & 0xFFFFF
    world.put(world.code_at, value | limit & 0xFFFF | limit >> 16 << 48)


def tss_limit(world):
    world.save.tr.limit = world.rng.choice((0, 2, 3, 5, 9, 10, 11, 13, 27, 28, 0x2A, 0x2B, 0x3A, 0x5B))


def tss_selector(world):
    """Any stack selector for ring 0."""
    _tss_selector(world, world.rng.getrandbits(8))


def tss_bad_selector(world):
    _tss_selector(world, world.rng.choice((0, 4, 1, 0x100, 0x104, 0x53, 8)))


def _tss_selector(world, selector):
    tr = world.save.tr
    at = tr.base - world.linear + (8 if tr.attributes & 8 else 4)
    world.put(at, selector, 2)


def _stack_descriptor_at(world):
    tr = world.save.tr
    return descriptor_at(world.get(tr.base - world.linear + (8 if tr.attributes & 8 else 4), 2))


def stack_type(world):
    at = _stack_descriptor_at(world)
    world.put(at, world.get(at) & ~(0x1F << 40) | (world.rng.getrandbits(5) | 1) << 40)


def stack_dpl(world):
    at = _stack_descriptor_at(world)
    world.put(at, world.get(at) & ~(3 << 45) | world.rng.getrandbits(2) << 45)


def stack_absent(world):
    _flip(world, _stack_descriptor_at(world), 1 << 47)


def stack_not_accessed(world):
    _flip(world, _stack_descriptor_at(world), 1 << 40)


def stack_limit(world):
    """A limit of 0 to 64 KiB for the stack in the TSS."""
    at = _stack_descriptor_at(world)
    value = world.get(at) & ~(0xFFFF | 0xF << 48 | 1 << 55)
    world.put(at, value | world.rng.getrandbits(16))


def own_stack_limit(world):
    world.save.ss.limit = world.rng.getrandbits(16)


def own_stack_small(world):
    """A stack pointer near zero: it wraps."""
    world.save.rsp = world.save.rsp & ~0xFFFF | world.rng.randrange(12) if world.paging == "" else world.save.rsp


def tss_rsp(world):
    """Stack pointers of the TSS that are not canonical or not mapped, or any."""
    start = world.save.tr.base - world.linear
    for offset in (4, 12, 20, *range(0x24, 0x5C, 8)):
        world.put(start + offset, _bad_address(world))


def own_rsp(world):
    world.save.rsp = _bad_address(world)


def _bad_address(world):
    rng, base = world.rng, world.linear
    return (
        rng.choice(
            (
                rng.getrandbits(64) | 1 << 62,
                1 << 47,
                1 << 56,
                0xFFFF_8000_0000_0000,
                0xFFFF_8000_0000_0010,
                0xFF00_0000_0000_0020,
                8,
                base + (1 << 33),
                base + (1 << 21) * 5,
                base + ARENA + 0x4010 ^ 1 << 39,
            )
        )
        & (1 << 64) - 1
    )


def handler_address(world):
    rng = world.rng
    bad = rng.choice((1 << 47, 1 << 56, rng.getrandbits(64) | 1 << 62, world.linear + (1 << 34)))
    value = world.get(world.gate_at) & ~(0xFFFF | 0xFFFF << 48)
    world.put(world.gate_at, value | bad & 0xFFFF | (bad >> 16 & 0xFFFF) << 48)
    world.put(world.gate_at + 8, bad >> 32 & 0xFFFF_FFFF)


def table_base(world):
    """A table that is not canonical or not mapped."""
    if world.paging == "none":
        return
    register = world.rng.choice((world.save.idtr, world.save.gdtr, world.save.ldtr, world.save.tr))
    base = _bad_address(world) if world.long else world.linear + (1 << 26) & 0xFFFF_FFFF
    # VMRUN makes bases canonical for the widest addresses (APM 15.5.1).
    register.base = base & (1 << 57) - 1 | (-1 << 57 & (1 << 64) - 1 if base >> 56 & 1 else 0)


_LEAVES = (IDT, GDT, LDT, TSS, TSS + 0x1000, *range(STACKS.start, STACKS.stop, 0x1000))


def _leaf(world, page):
    """Return place and size of the entry of a page of the arena."""
    if world.paging == "narrow":
        return PT + 4 * (page >> 12), 4
    return PT + 8 * (page >> 12), 8


def _entries(world):
    """Return place and size of the entries that lead to the last table."""
    base = world.linear
    if world.paging == "narrow":
        return [(ROOT + 4 * (base >> 22), 4)]
    found = [(PD + 8 * (base >> 21 & 0x1FF), 8)]
    if world.paging == "pae":
        return found
    found += [(PDPT + 8 * (base >> 30 & 0x1FF), 8), (PML4 + 8 * (base >> 39 & 0x1FF), 8)]
    return [*found, (ROOT + 8 * (base >> 48 & 0x1FF), 8)] if world.paging == "five" else found


def _page_bits(world, bits):
    if world.paging not in ("", "none"):
        entry, size = _leaf(world, world.rng.choice(_LEAVES))
        _flip(world, entry, bits, size)


def page_absent(world):
    _page_bits(world, P)


def page_read_only(world):
    _page_bits(world, RW)


def page_user(world):
    """A user page, as far as the tables above let it be one."""
    if world.paging not in ("", "none"):
        for entry, size in _entries(world):
            _flip(world, entry, US, size)
        for _ in range(3):
            _page_bits(world, US)


def page_not_accessed(world):
    _page_bits(world, A)


def page_not_dirty(world):
    _page_bits(world, D)


def page_nx(world):
    if world.paging in ("pae", "four", "five"):
        _page_bits(world, NX)


def page_reserved(world):
    if world.paging in ("pae", "four", "five"):
        _page_bits(world, 1 << world.rng.randrange(PHYSICAL_BITS, 52))


def table_bits(world):
    """Something about an entry above the last table."""
    if world.paging in ("", "none"):
        return
    entry, size = world.rng.choice(_entries(world))
    bits = [P, RW, US, A]
    if size == 8:
        bits += [NX, 1 << world.rng.randrange(PHYSICAL_BITS, 52)]
    _flip(world, entry, world.rng.choice(bits), size)


def large_page(world):
    """A large page in place of a table: it maps the same, since `linear` is aligned to it."""
    if world.paging in ("", "none"):
        return
    rng = world.rng
    entry, size = rng.choice(_entries(world))
    kept = world.get(entry, size) & (0xFFF | NX)
    extra = (
        rng.choice((0, 0, 0, 1 << 12, 1 << 13, 1 << 20, 1 << 21))
        if size == 8
        else rng.choice((0, 0, 0, 1 << 12, 1 << 21))
    )
    world.put(entry, kept | PS | extra, size)


def pdpt_reserved(world):
    if world.paging == "pae":
        _flip(world, PDPT + 8 * (world.linear >> 30), 1 << world.rng.choice((0, 45, 52, 55, 62, 63)))


_PAGING = [
    page_absent, page_read_only, page_user, page_not_accessed, page_not_dirty, page_nx, page_reserved,
    table_bits, large_page,
]  # fmt: skip
_GATES = [gate_type, gate_absent, gate_dpl, gate_selector, idt_limit]
_CODES = [gdt_limit, ldt_limit, code_type, code_dpl, code_absent, code_not_accessed, code_limit, table_base]
_INNER = [
    tss_limit, tss_selector, tss_bad_selector, stack_type, stack_dpl, stack_absent, stack_not_accessed, stack_limit,
]  # fmt: skip
_LEGACY = _GATES + _CODES + _INNER + _PAGING + [pdpt_reserved, own_stack_limit]

_MUTATIONS: dict[str, list[Callable[[World], None]]] = {
    "real": [idt_limit, own_stack_limit, own_stack_small],
    "protected16": _LEGACY,
    "protected32": _LEGACY,
    "v86": _LEGACY,
    "long": [*_GATES, *_CODES, code_l_d, tss_limit, tss_rsp, own_rsp, handler_address, *_PAGING],
    "compat": [*_GATES, *_CODES, code_l_d, tss_limit, tss_rsp, handler_address, *_PAGING],
}
