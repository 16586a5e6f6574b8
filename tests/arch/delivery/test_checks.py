"""Each check of each mode, planted: the row that is named, what follows, and its error code."""

from itertools import pairwise

import pytest

from tests.arch.delivery.states import (
    GDT,
    IDT,
    PT,
    STACKS,
    TSS,
    code_index,
    data_index,
    plain,
)  # fmt: skip
from trapline.arch.delivery import Delivered, Failed, checks, deliver
from trapline.arch.events import Event, EventType
from trapline.arch.paging import NX, RW, US, Denied, P
from trapline.arch.registers import CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector

UD = Event(Vector.UD, EventType.EXCEPTION)
GP = Event(Vector.GP, EventType.EXCEPTION, 0x1234)
INT = Event(0x40, EventType.SOFT)
IRQ = Event(0x41, EventType.INTR)
NON_CANONICAL = 0x1234 << 48


def ask(world, **options):
    return deliver(world.save, world.event, world.memory, **options)


def change(gpa, clear, put=0, size=8):
    """Plant a defect in the arena."""
    return lambda world: world.put(gpa, world.get(gpa, size) & ~clear | put, size)


def in_gate(clear, put=0):
    return lambda world: world.put(world.gate_at, world.get(world.gate_at) & ~clear | put)


def in_code(clear, put=0):
    return lambda world: world.put(world.code_at, world.get(world.code_at) & ~clear | put)


def in_save(path, value):
    def plant(world):
        owner = world.save
        *parts, last = path.split(".")
        for part in parts:
            owner = getattr(owner, part)
        setattr(owner, last, value)

    return plant


def selector(value):
    return in_gate(0xFFFF << 16, value << 16)


def page(gpa, clear=P, put=0):
    """Change the page table's entry of a page of the arena."""

    def plant(world):
        size = 4 if world.paging == "narrow" else 8
        change(PT + size * (gpa >> 12), clear, put, size)(world)

    return plant


TYPE, DPL, PRESENT = 0x1F << 40, 3 << 45, 1 << 47
CODE_0 = code_index(0) << 3
STACK_0 = GDT + (data_index(0) << 3)
TSS_SS0 = TSS + 8


def both(*plants):
    def plant(world):
        for each in plants:
            each(world)

    return plant


to_task = in_gate(TYPE, 5 << 40)
"""The gate becomes a task gate, which names a code segment."""

GATE_ROWS = [
    ("IDT limit", UD, 0, in_save("idtr.limit", 6 * 8 + 6), Vector.GP, 6 * 8 + 2 | 1),
    ("IDT page", UD, 0, page(IDT), Vector.PF, 0),
    ("IDT page", UD, 3, page(IDT), Vector.PF, 0),
    ("gate type", UD, 0, in_gate(TYPE, 12 << 40), Vector.GP, 6 * 8 + 2 | 1),
    ("gate type", INT, 0, in_gate(0, 1 << 44), Vector.GP, 0x40 * 8 + 2),
    ("gate DPL", INT, 3, in_gate(DPL, 2 << 45), Vector.GP, 0x40 * 8 + 2),
    ("gate DPL", Event(3, EventType.EXCEPTION), 3, in_gate(DPL, 0), Vector.GP, 3 * 8 + 2),
    ("gate DPL", Event(4, EventType.EXCEPTION), 3, in_gate(DPL, 0), Vector.GP, 4 * 8 + 2),
    ("gate present", IRQ, 0, in_gate(PRESENT), Vector.NP, 0x41 * 8 + 2 | 1),
    ("gate present", INT, 0, in_gate(PRESENT), Vector.NP, 0x40 * 8 + 2),
    ("code selector", UD, 0, selector(3), Vector.GP, 1),
    ("code selector", INT, 0, selector(0), Vector.GP, 0),
    ("code table limit", UD, 0, in_save("gdtr.limit", CODE_0 + 6), Vector.GP, CODE_0 | 1),
    ("code table limit", UD, 0, selector(0xFFF8), Vector.GP, 0xFFF8 | 1),
    ("code table limit", INT, 0, selector(0x10C), Vector.GP, 0x10C),
    ("descriptor page", UD, 0, page(GDT), Vector.PF, 0),
    ("code type", UD, 0, selector(data_index(0) << 3), Vector.GP, data_index(0) << 3 | 1),
    ("code type", UD, 0, in_code(1 << 44), Vector.GP, CODE_0 | 1),
    ("code DPL", INT, 0, in_code(DPL, 1 << 45), Vector.GP, CODE_0),
    ("code present", UD, 0, in_code(PRESENT), Vector.NP, CODE_0 | 1),
    ("descriptor page", UD, 0, lambda world: (in_code(1 << 40)(world), page(GDT, RW)(world)), Vector.PF, 3),
]
"""Name, event, CPL, defect, what follows and its error code: the same in protected and in long mode."""

LEGACY_ROWS = [
    ("task table", INT, 0, both(to_task, in_code(TYPE, 9 << 40), selector(CODE_0 | 4)), Vector.GP, CODE_0 | 4),
    ("task table limit", UD, 0, both(to_task, in_save("gdtr.limit", CODE_0 + 6)), Vector.GP, CODE_0 | 1),
    ("task type", UD, 0, to_task, Vector.GP, CODE_0 | 1),
    ("task type", INT, 0, both(to_task, in_code(TYPE, 11 << 40)), Vector.GP, CODE_0),
    ("task present", UD, 3, both(to_task, in_code(TYPE | PRESENT, 9 << 40)), Vector.NP, CODE_0 | 1),
    ("task gate", UD, 0, both(to_task, in_code(TYPE, 9 << 40)), None, None),
    ("task gate", UD, 0, both(to_task, in_code(TYPE, 1 << 40)), None, None),
    ("TSS limit", UD, 3, in_save("tr.limit", 10), Vector.TS, 0x90 | 1),
    ("TSS page", UD, 3, page(TSS), Vector.PF, 0),
    ("stack selector", INT, 3, change(TSS_SS0, 0xFFFF, 0, 2), Vector.TS, 0),
    ("stack RPL", UD, 3, change(TSS_SS0, 3, 1, 2), Vector.TS, (data_index(0) << 3) | 1),
    ("stack table limit", UD, 3, change(TSS_SS0, 0xFFFF, 0x1000, 2), Vector.TS, 0x1001),
    ("stack DPL", INT, 3, change(STACK_0, DPL, 1 << 45), Vector.TS, data_index(0) << 3),
    ("stack type", INT, 3, change(STACK_0, 1 << 41), Vector.TS, data_index(0) << 3),
    ("stack type", INT, 3, change(STACK_0, 0, 1 << 43), Vector.TS, data_index(0) << 3),
    ("stack present", INT, 3, change(STACK_0, PRESENT), Vector.SS, data_index(0) << 3),
    ("stack limit", INT, 0, in_save("ss.limit", 100), Vector.SS, 0),
    ("stack limit", UD, 3, change(STACK_0, 0xFFFF | 0xF << 48 | 1 << 55), Vector.SS, 1),
    ("stack page", INT, 3, page(STACKS.start + 0x1000), Vector.PF, 2),
    ("handler in segment", INT, 0, in_code(0xFFFF | 0xF << 48 | 1 << 55), Vector.GP, 0),
]

LONG_ROWS = [
    ("IDT limit", UD, 0, in_save("idtr.limit", 6 * 16 + 14), Vector.GP, 6 * 8 + 2 | 1),
    ("IDT address", UD, 0, in_save("idtr.base", NON_CANONICAL), Vector.GP, 1),
    ("gate type", UD, 0, in_gate(TYPE, 6 << 40), Vector.GP, 6 * 8 + 2 | 1),
    ("gate type", UD, 0, in_gate(TYPE, 5 << 40), Vector.GP, 6 * 8 + 2 | 1),
    ("descriptor address", INT, 0, in_save("gdtr.base", NON_CANONICAL), Vector.GP, 0),
    ("code L and D", UD, 0, in_code(1 << 53), Vector.GP, CODE_0 | 1),
    ("code L and D", UD, 0, in_code(0, 1 << 54), Vector.GP, CODE_0 | 1),
    ("TSS limit", UD, 3, in_save("tr.limit", 10), Vector.TS, 0x90 | 1),
    (
        "TSS limit",
        INT,
        0,
        lambda world: (in_gate(0, 7 << 32)(world), in_save("tr.limit", 0x5A)(world)),
        Vector.TS,
        0x90,
    ),
    ("TSS address", INT, 3, in_save("tr.base", NON_CANONICAL), Vector.GP, 0),
    ("TSS page", UD, 3, page(TSS), Vector.PF, 0),
    ("stack pointer", UD, 3, change(TSS + 4, -1, NON_CANONICAL), Vector.SS, 1),
    ("stack address", INT, 0, in_save("rsp", NON_CANONICAL), Vector.SS, 0),
    ("stack page", INT, 3, page(STACKS.start + 0x1000), Vector.PF, 2),
    ("stack page", INT, 3, page(STACKS.start + 0x1000, RW), Vector.PF, 3),
    ("handler address", UD, 0, lambda world: change(world.gate_at + 8, -1, 0x1234_0000)(world), Vector.GP, 1),
]

REAL_ROWS = [
    ("IDT limit", UD, in_save("idtr.limit", 6 * 4 + 2), Vector.GP, 6 * 8 + 2 | 1),
    ("stack limit", INT, in_save("ss.limit", 0x4FFE), Vector.SS, 0),
    ("handler in segment", INT, in_save("cs.limit", 0x455), Vector.GP, 0),
]

V86_ROWS = [
    ("IOPL", INT, in_save("rflags", RFLAGS.VM | RFLAGS.ALWAYS_ONE), Vector.GP, 0),
    ("gate DPL", INT, in_gate(DPL), Vector.GP, 0x40 * 8 + 2),
    ("code of ring 0", UD, in_code(DPL, 3 << 45), Vector.GP, CODE_0 | 1),
    ("code of ring 0", INT, in_code(0, 1 << 42), Vector.GP, CODE_0),
    ("TSS limit", UD, in_save("tr.limit", 10), Vector.TS, 0x91),
    ("stack page", UD, page(STACKS.start + 0x1000), Vector.PF, 2),
]


def check(world, name, vector, code):
    outcome = ask(world)
    assert isinstance(outcome, Failed)
    assert outcome.check.name == name
    expected = None if vector is None else Event(vector, EventType.EXCEPTION, code)
    assert outcome.event == expected
    assert (outcome.address is not None) == (vector == Vector.PF)
    assert f"[APM {outcome.check.section}]" in str(outcome)
    assert outcome.details["vector"] == world.vector
    return outcome


@pytest.mark.parametrize(("name", "event", "cpl", "plant", "vector", "code"), GATE_ROWS + LEGACY_ROWS)
@pytest.mark.parametrize("paging", ["narrow", "pae"])
def test_protected_mode(name, event, cpl, plant, vector, code, paging):
    world = plain("protected32", event, cpl=cpl, paging=paging)
    assert isinstance(ask(world), Delivered)
    plant(world)
    assert check(world, name, vector, code).check in checks.PROTECTED


@pytest.mark.parametrize(("name", "event", "cpl", "plant", "vector", "code"), GATE_ROWS + LONG_ROWS)
@pytest.mark.parametrize("mode", ["long", "compat"])
@pytest.mark.parametrize("paging", ["four", "five"])
def test_long_mode(name, event, cpl, plant, vector, code, mode, paging):
    world = plain(mode, event, cpl=cpl, paging=paging)
    assert isinstance(ask(world), Delivered)
    plant(world)
    assert check(world, name, vector, code).check in checks.LONG


@pytest.mark.parametrize(("name", "event", "plant", "vector", "code"), REAL_ROWS)
def test_real_mode(name, event, plant, vector, code):
    world = plain("real", event)
    assert isinstance(ask(world), Delivered)
    plant(world)
    assert check(world, name, vector, code).check in checks.REAL


@pytest.mark.parametrize(("name", "event", "plant", "vector", "code"), V86_ROWS)
def test_virtual_8086_mode(name, event, plant, vector, code):
    world = plain("v86", event)
    assert isinstance(ask(world), Delivered)
    plant(world)
    assert check(world, name, vector, code).check in checks.VIRTUAL_8086


def _ordered(rows, order):
    """Return pairs of neighbours in the order that can both be planted."""
    planted = {row[0]: row for row in sorted(rows, key=lambda row: row[2])}  # at CPL 3 where there is a choice
    names = [row.name for row in order]
    known = [planted[name] for name in names if name in planted and names.count(name) == 1]
    return [pair for pair in pairwise(known) if pair[0][0] != "task gate"]  # behind it, no code is looked at


@pytest.mark.parametrize(
    ("mode", "earlier", "later"),
    [("protected32", *pair) for pair in _ordered(GATE_ROWS[:-1] + LEGACY_ROWS, checks.PROTECTED)]
    + [("long", *pair) for pair in _ordered(GATE_ROWS[:-1] + LONG_ROWS, checks.LONG)],
)
def test_checks_are_made_in_the_order_of_the_table(mode, earlier, later):
    """With both defects, the row that comes first is named, whatever order they are planted in."""
    at_cpl_0 = "code DPL" in (earlier[0], later[0]) or earlier[0] == "stack address"
    world = plain(mode, Event(0x42, EventType.SOFT), cpl=0 if at_cpl_0 else 3)
    for row in (later, earlier):
        plant = {"IDT limit": in_save("idtr.limit", 0x42 * 8)}.get(row[0], row[3])
        plant(world)
    assert ask(world).check.name == earlier[0]


def test_the_ldt_holds_code_too():
    world = plain("protected32", UD)
    selector(CODE_0 | 4)(world)
    assert ask(world).cs.selector == CODE_0 | 4
    in_save("ldtr.attributes", 2)(world)
    check(world, "code table limit", Vector.GP, CODE_0 | 5)


@pytest.mark.parametrize(
    ("bits", "smap", "ac", "code"),
    [(US, True, False, 1), (US, True, True, 1), (US, False, False, None), (0, True, False, None)],
)
def test_smap_and_tables_in_user_pages(bits, smap, ac, code):
    """Reads of tables are the processor's own: RFLAGS.AC does not allow them."""
    world = plain("long", UD, linear=0x7FFF_C000_0000)
    for table in (0x1B000, 0x1C000, 0x1D000):
        for place in range(table, table + 0x1000, 8):
            if world.get(place):
                world.put(place, world.get(place) | US)
    page(IDT, 0, bits)(world)
    world.save.cr4 |= CR4.SMAP if smap else 0
    world.save.rflags |= RFLAGS.AC if ac else 0
    if code is None:
        assert isinstance(ask(world), Delivered)
    else:
        assert check(world, "IDT page", Vector.PF, code).denied is Denied.SMAP


def test_reserved_bits_of_a_page_table():
    world = plain("long", UD)
    assert isinstance(ask(world, physical_bits=40), Delivered)
    page(IDT, 0, 1 << 45)(world)
    assert ask(world).check.name == "gate type"  # of all ones: there is no memory
    outcome = ask(world, physical_bits=40)
    assert outcome.event.error_code == 9
    assert outcome.denied is Denied.RESERVED_BITS
    assert "reserved bits are set" in str(outcome)
    page(IDT, 1 << 45, NX)(world)
    assert isinstance(ask(world, physical_bits=40), Delivered)
    world.save.efer &= ~EFER.NXE
    assert ask(world, physical_bits=40).event.error_code == 9


def test_what_was_pushed_before_the_failure_stays():
    world = plain("long", UD)
    world.save.rsp = world.linear + STACKS.start + 0x1010
    page(STACKS.start)(world)
    outcome = check(world, "stack page", Vector.PF, 2)
    assert outcome.address == world.linear + STACKS.start + 0xFF8
    assert outcome.writes == [
        (STACKS.start + 0x1008, (data_index(0) << 3).to_bytes(8, "little")),
        (STACKS.start + 0x1000, world.save.rsp.to_bytes(8, "little")),
    ]
