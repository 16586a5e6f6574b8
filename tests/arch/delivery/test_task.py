"""What the task switch of a task gate does, and what it fails at."""

import random
import struct

import pytest

from tests.arch.delivery.states import (
    ARENA,
    CODE,
    DATA,
    DATA_16,
    GDT,
    LDT,
    MODES,
    PT,
    TSS,
    code_index,
    data_index,
    descriptor,
    make,
    plain,
)
from trapline.arch.delivery import Delivered, Failed, checks, deliver, handler_addresses, switch
from trapline.arch.descriptors import SystemType, task_fields
from trapline.arch.events import Event, EventType
from trapline.arch.registers import CR0, DR7, RFLAGS, Gprs
from trapline.arch.vectors import Vector

NEW, SELECTOR = ARENA + 0xF000, 0xA0
WIDE, NARROW = SystemType.TSS_32, SystemType.TSS_16
DF = Event(Vector.DF, EventType.EXCEPTION, 0)
UD = Event(Vector.UD, EventType.EXCEPTION)
CS, SS, USER_CS, USER_DATA = (
    index << 3 | rpl for index, rpl in ((code_index(0), 0), (data_index(0), 0), (code_index(3), 3), (data_index(3), 3))
)
STACK = ARENA + 0x6000
LDT_SELECTOR = 0xA8
WORDS = {WIDE: "<II8I6I", NARROW: "<HH8H4H"}


def task(world, kind, *, gprs=range(0x10, 0x18), flags=RFLAGS.ALWAYS_ONE, cs=CS, ss=SS, data=SS, ldt=0):
    """Put a TSS, and its descriptor into the GDT."""
    at, base = task_fields(kind), world.linear
    registers = [*gprs]
    registers[4] = STACK if kind == WIDE else STACK - ARENA
    names = (data, cs, ss, data, data, data)[: at.segment_count]
    values = struct.pack(WORDS[kind], 0x456, flags, *registers, *names)
    world.data[NEW - ARENA + at.ip : NEW - ARENA + at.ip + len(values)] = values
    world.put(NEW + at.ldt, ldt, 2)
    if at.cr3 is not None:
        world.put(NEW + at.cr3, world.save.cr3, 4)
    world.put(GDT + SELECTOR, descriptor(base + NEW, at.size - 1, 0x80 | kind))
    world.put(GDT + LDT_SELECTOR, descriptor(base + LDT, 0xFF, 0x80 | SystemType.LDT))


def switched(world, event=DF, gprs=None):
    return switch(world.save, gprs or Gprs(), event, world.memory, SELECTOR)


def stored(world, writes):
    """Return the arena with the writes."""
    data = bytearray(world.data)
    for gpa, value in writes:
        data[gpa - ARENA : gpa - ARENA + len(value)] = value
    return data


def numbers(data, gpa, form):
    return struct.unpack_from(form, data, gpa - ARENA)


@pytest.mark.parametrize("paging", ["none", "narrow"])
@pytest.mark.parametrize("kind", [WIDE, NARROW])
def test_the_new_task_has_the_registers_of_its_tss(kind, paging):
    world = plain("protected32", DF, paging=paging)
    world.save.dr7 = DR7.FIXED | DR7.L0 | DR7.G0
    wide = kind == WIDE
    stack = SS if wide else DATA_16 << 3
    task(world, kind, ss=stack, data=stack)
    result = switched(world)
    save, gprs = result.save, result.gprs
    high = 0 if wide else 0xFFFF_0000
    assert result.failed is None
    assert (save.rax, gprs.rcx, gprs.rbx, gprs.rdi) == tuple(high | value for value in (0x10, 0x11, 0x13, 0x17))
    assert (save.rip, save.rflags, save.cpl) == (0x456, RFLAGS.ALWAYS_ONE | RFLAGS.NT, 0)
    assert (save.cs.selector, save.ss.selector, save.ds.selector) == (CS, stack, stack)
    assert (save.fs.selector, save.gs.selector) == ((stack, stack) if wide else (0, 0))
    assert (save.tr.selector, save.tr.base, save.tr.attributes & 0xF) == (SELECTOR, world.linear + NEW, kind | 2)
    assert save.cr0 & CR0.TS
    assert save.dr7 == DR7.FIXED | DR7.G0
    width = 4 if wide else 2
    top = STACK - width
    assert save.rsp == (top if wide else high | top - ARENA)
    data = stored(world, result.writes)
    assert numbers(data, top, "<I" if wide else "<H") == (0,)
    assert numbers(data, NEW, "<H") == (0x90,)
    assert data[GDT + SELECTOR + 5 - ARENA] & 0xF == kind | 2


@pytest.mark.parametrize("kind", [WIDE, NARROW])
def test_the_old_task_is_saved_in_its_own_tss(kind):
    world = plain("protected32", UD)
    save, gprs = world.save, Gprs(rcx=0xC1, rdx=0xD1, rbx=0xB1, rbp=0xB2, rsi=0x51, rdi=0xD2)
    save.tr.attributes, save.rax, save.rsp = 0x80 | kind | 2, 0xA1, STACK
    task(world, WIDE)
    result = switched(world, UD, gprs)
    at = task_fields(kind)
    (rip, flags, *registers) = numbers(stored(world, result.writes), TSS + at.ip, WORDS[kind])
    low = (1 << 8 * at.width) - 1
    pushed = save.rflags | RFLAGS.RF
    assert (rip, flags) == (save.rip & low, pushed & low)
    assert registers[:8] == [value & low for value in (0xA1, 0xC1, 0xD1, 0xB1, STACK, 0xB2, 0x51, 0xD2)]
    names = ("es", "cs", "ss", "ds", "fs", "gs")[: at.segment_count]
    assert registers[8:] == [getattr(save, name).selector for name in names]


def test_virtual_8086_mode():
    world = plain("protected32", UD)
    task(world, WIDE, flags=RFLAGS.ALWAYS_ONE | RFLAGS.VM, cs=0x3000, ss=0x1000, data=0x2000)
    save = switched(world, UD).save
    assert (save.cpl, save.cs.base, save.ss.base, save.gs.base) == (3, 0x3_0000, 0x1_0000, 0x2_0000)
    assert save.rflags & RFLAGS.VM


def test_segments_of_the_ldt_of_the_new_task():
    world = plain("protected32", UD)
    task(world, WIDE, cs=CS | 4, ss=SS | 4, ldt=LDT_SELECTOR)
    result = switched(world, UD)
    assert result.failed is None
    assert (result.save.ldtr.selector, result.save.ldtr.base) == (LDT_SELECTOR, world.linear + LDT)
    assert result.save.cs.selector == CS | 4


def short(world):
    world.put(GDT + SELECTOR, descriptor(world.linear + NEW, 0x66, 0x80 | WIDE))


def absent(selector):
    def change(world):
        at = GDT + (selector & 0xFF8)
        world.put(at, world.get(at) & ~(1 << 47))

    return change


def own_page_absent(world):
    world.put(PT + 4 * (NEW >> 12), 0, 4)


@pytest.mark.parametrize(
    ("change", "fields", "check"),
    [
        (short, {}, checks.TASK_SIZE),
        (own_page_absent, {}, None),
    ],
)
def test_what_the_outgoing_task_fails_at(change, fields, check):
    world = plain("protected32", UD)
    task(world, WIDE, **fields)
    change(world)
    failed = switched(world, UD)
    assert isinstance(failed, Failed)
    assert failed.event.vector == (Vector.TS if check else Vector.PF)
    assert check in (None, failed.check)


CONFORMING_1 = 10
DATA_CASES = [
    (None, {"ldt": 0x4}, checks.TASK_LDT),
    (None, {"ldt": SS}, checks.TASK_LDT),
    (None, {"cs": 0}, checks.TASK_SEGMENT),
    (None, {"cs": SS}, checks.TASK_SEGMENT),
    (None, {"cs": USER_CS & ~3}, checks.TASK_SEGMENT),
    (None, {"cs": CONFORMING_1 << 3}, checks.TASK_SEGMENT),
    (None, {"ss": 0}, checks.TASK_SEGMENT),
    (None, {"ss": CS}, checks.TASK_SEGMENT),
    (None, {"ss": USER_DATA}, checks.TASK_SEGMENT),
    (None, {"data": SELECTOR}, checks.TASK_SEGMENT),
    (None, {"data": 0x100}, checks.TASK_SEGMENT),
    (None, {"cs": USER_CS, "ss": USER_DATA, "data": SS}, checks.TASK_SEGMENT),
    (absent(CS), {}, checks.TASK_SEGMENT_PRESENT),
    (absent(SS), {}, checks.STACK_PRESENT),
    (absent(USER_DATA), {"data": USER_DATA}, checks.TASK_SEGMENT_PRESENT),
    (lambda world: world.put(GDT + CS, descriptor(0, 0x100, CODE)), {}, checks.HANDLER_LIMIT),
]


@pytest.mark.parametrize(("change", "fields", "check"), DATA_CASES)
def test_what_the_new_task_fails_at(change, fields, check):
    world = plain("protected32", UD)
    task(world, WIDE, **fields)
    if change is not None:
        change(world)
    result = switched(world, UD)
    assert result.failed.check is check
    assert result.save.tr.selector == SELECTOR


def test_data_segments_may_be_null_and_descriptors_are_marked_accessed():
    world = plain("protected32", UD)
    task(world, WIDE, data=0)
    world.put(GDT + SS, descriptor(world.linear, 0xFFFFF, DATA & ~1 | 0xC00))
    result = switched(world, UD)
    assert (result.failed, result.save.ds.attributes) == (None, 0)
    assert stored(world, result.writes)[GDT + SS + 5 - ARENA] & 1


@pytest.mark.parametrize("mode", MODES)
def test_a_handler_begins_at_one_of_the_addresses_that_are_told(mode):
    rng = random.Random(5)
    delivered = 0
    for _ in range(150):
        world = make(mode, rng)
        result = deliver(world.save, world.event, world.memory, physical_bits=40)
        if isinstance(result, Delivered):
            delivered += 1
            at = result.cs.base + result.rip if mode != "long" else result.rip
            at &= 0xFFFF_FFFF_FFFF_FFFF if world.long else 0xFFFF_FFFF
            assert at in handler_addresses(world.save, world.event, world.memory, 40)
    assert delivered > 20


@pytest.mark.parametrize(
    ("kind", "fields", "base"),
    [
        (WIDE, {}, None),
        (NARROW, {}, None),
        (WIDE, {"cs": CS | 4, "ldt": LDT_SELECTOR}, None),
        (WIDE, {"flags": RFLAGS.VM, "cs": 0x3000}, 0x3_0000),
    ],
)
def test_where_a_task_begins(kind, fields, base):
    world = plain("protected32", UD)
    task(world, kind, **fields)
    world.put(world.gate_at, SELECTOR << 16 | 0x85 << 40)
    expected = (world.linear if base is None else base) + 0x456
    assert handler_addresses(world.save, UD, world.memory, 40) == {expected & 0xFFFF_FFFF}
