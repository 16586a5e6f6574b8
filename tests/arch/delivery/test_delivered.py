"""What a delivery that succeeds does: frame, registers, stores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.arch.delivery.states import (
    ARENA,
    CODE,
    DATA_16,
    GDT,
    HANDLERS,
    IDT,
    PD,
    PT,
    STACKS,
    TSS,
    Memory,
    code_index,
    data_index,
    descriptor,
    gate,
    plain,
)  # fmt: skip
from trapline.arch import descriptors
from trapline.arch.delivery import Delivered, apply, checks, deliver
from trapline.arch.descriptors import SegmentState
from trapline.arch.events import Event, EventType
from trapline.arch.layout import leaves
from trapline.arch.paging import US, A, D
from trapline.arch.registers import CR4, RFLAGS
from trapline.arch.vectors import VECTORS, Kind, Vector

UD = Event(Vector.UD, EventType.EXCEPTION)
GP = Event(Vector.GP, EventType.EXCEPTION, 0x1238)
INT = Event(0x40, EventType.SOFT)
FLAGS = RFLAGS.ALWAYS_ONE | RFLAGS.IF | RFLAGS.TF | RFLAGS.NT
CS_0, CS_3, SS_0, SS_3 = (index << 3 for index in (code_index(0), code_index(3), data_index(0), data_index(3)))


def delivered(world, **options):
    outcome = deliver(world.save, world.event, world.memory, **options)
    assert isinstance(outcome, Delivered), str(outcome)
    return outcome


def stored(world, outcome):
    """Return the arena after the stores."""
    data = bytearray(world.data)
    for gpa, value in outcome.writes:
        data[gpa - ARENA : gpa - ARENA + len(value)] = value
    return data


def on_stack(world, outcome):
    """Return what memory holds where the frame is, in the order of the pushes."""
    memory = Memory(stored(world, outcome))
    gva, width, values = outcome.frame
    gpa = gva - world.linear
    words = [memory.u64(gpa + width * number) & (1 << 8 * width) - 1 for number in range(len(values))]
    assert words[::-1] == [value & (1 << 8 * width) - 1 for value in values]
    return tuple(words[::-1])


def test_long_mode_pushes_five_quads_below_an_aligned_stack():
    world = plain("long", UD)
    world.save.rsp += 9
    outcome = delivered(world)
    top = world.linear + STACKS.start + 0x800
    assert on_stack(world, outcome) == (SS_0, top + 9, FLAGS | RFLAGS.RF, CS_0, 0x1234)
    assert outcome.rsp == outcome.frame.gva == top - 40
    assert (outcome.rip, outcome.cpl, outcome.ss, outcome.nulled) == (world.linear + HANDLERS + 0x456, 0, None, False)
    assert outcome.rflags == RFLAGS.ALWAYS_ONE
    assert outcome.cs == SegmentState(CS_0, CODE | 0xA00, 0xFFFF_FFFF, 0)


def test_an_error_code_comes_last():
    world = plain("long", GP)
    assert on_stack(world, delivered(world))[-2:] == (0x1234, 0x1238)
    world = plain("protected32", GP)
    assert on_stack(world, delivered(world)) == (FLAGS | RFLAGS.RF, CS_0, 0x1234, 0x1238)


def test_long_mode_changes_the_stack_with_cpl():
    world = plain("compat", UD, cpl=3)
    outcome = delivered(world)
    assert outcome.frame.values[0] == SS_3 | 3
    assert outcome.rsp == world.linear + STACKS.start + 0x2000 - 40
    assert (outcome.cpl, outcome.ss) == (0, SegmentState(0, 0, 0, 0))
    world = plain("long", UD, cpl=3, target=2)
    outcome = delivered(world)
    assert outcome.rsp == world.linear + STACKS.start + 0x4000 - 40
    assert (outcome.cpl, outcome.ss, outcome.cs.selector) == (2, SegmentState(2, 2 << 5, 0, 0), code_index(2) << 3 | 2)


@pytest.mark.parametrize("cpl", [0, 3])
@pytest.mark.parametrize("ist", [1, 7])
def test_an_ist_stack(cpl, ist):
    world = plain("long", UD, cpl=cpl, ist=ist)
    outcome = delivered(world)
    assert outcome.rsp == world.linear + STACKS.start + 0x5000 + 0x10 * ist - 40
    assert (outcome.ss is None) == (cpl == 0)


def test_a_conforming_handler_keeps_cpl():
    world = plain("protected32", UD, cpl=3)
    world.put(world.code_at, world.get(world.code_at) | 1 << 42)
    for page in range(STACKS.start, STACKS.stop, 0x1000):  # its frame is pushed by the user
        world.put(PT + 4 * (page >> 12), world.get(PT + 4 * (page >> 12), 4) | US, 4)
    outcome = deliver(world.save, world.event, world.memory)
    assert outcome.check.name == "stack page"
    world.put(0x1A000 + 4 * (world.linear >> 22), world.get(0x1A000 + 4 * (world.linear >> 22), 4) | US, 4)
    outcome = delivered(world)
    assert (outcome.cpl, outcome.cs.selector, outcome.ss) == (3, CS_0 | 3, None)


def test_protected_mode_on_the_same_stack():
    world = plain("protected32", INT, kind=15)
    outcome = delivered(world, next_rip=0x1236)
    assert on_stack(world, outcome) == (FLAGS, CS_0, 0x1236)
    assert outcome.rflags == RFLAGS.ALWAYS_ONE | RFLAGS.IF
    assert outcome.rsp == STACKS.start + 0x800 - 12
    assert (outcome.rip, outcome.cs.base) == (HANDLERS + 0x456, world.linear)


def test_protected_mode_with_another_stack():
    world = plain("protected32", UD, cpl=3, target=1)
    outcome = delivered(world)
    assert on_stack(world, outcome) == (SS_3 | 3, STACKS.start + 0x800, FLAGS | RFLAGS.RF, CS_3 | 3, 0x1234)
    assert outcome.rsp == STACKS.start + 0x3000 - 20
    assert (outcome.cpl, outcome.ss.selector, outcome.cs.selector) == (
        1,
        data_index(1) << 3 | 1,
        code_index(1) << 3 | 1,
    )


def test_a_16_bit_gate_and_tss():
    world = plain("protected16", GP, cpl=3)
    world.save.rsp |= 0xABCD_0000
    world.save.rip = 0x5678_1234
    outcome = delivered(world)
    frame = (SS_3 | 3, world.save.rsp & 0xFFFF, FLAGS & 0xFFFF, CS_3 | 3, 0x1234, 0x1238)
    assert on_stack(world, outcome) == frame
    assert outcome.rip == 0x3456
    # A 16-bit stack: the high half of RSP stays.
    assert outcome.rsp == 0xABCD_0000 | STACKS.start - ARENA + 0x2000 - 12
    assert outcome.ss.selector == DATA_16 << 3


def test_leaving_virtual_8086_mode():
    world = plain("v86", UD)
    outcome = delivered(world)
    segments = (0x6000, 0x5000, 0x3000, 0x4000)
    flags = FLAGS | RFLAGS.RF | RFLAGS.VM | RFLAGS.IOPL
    assert on_stack(world, outcome) == (*segments, 0x2000, 0x8000, flags, 0x1000, 0x1234)
    assert outcome.rflags == RFLAGS.ALWAYS_ONE | RFLAGS.IOPL
    assert outcome.nulled
    assert outcome.cpl == 0


def test_real_mode():
    world = plain("real", GP)
    world.save.rflags |= RFLAGS.AC
    outcome = delivered(world)
    assert outcome.frame.gva == 0x10000 + 0x5000 - 6
    assert b"".join(value for _, value in outcome.writes[::-1]) == b"\x34\x12\x00\x30" + FLAGS.to_bytes(2, "little")
    assert (outcome.rip, outcome.cs) == (0x456, SegmentState(0x3000, CODE, 0xFFFF, 0x30000))
    assert outcome.rflags == RFLAGS.ALWAYS_ONE | RFLAGS.NT
    assert outcome.rsp == 0x5000 - 6


def test_sp_wraps():
    world = plain("real", UD)
    world.save.rsp = 0xFFFF_0002
    outcome = delivered(world)
    assert outcome.rsp == 0xFFFF_FFFC
    assert [gpa for gpa, _ in outcome.writes] == [0x10000, 0x1FFFE, 0x1FFFC]


def test_an_expand_down_stack():
    world = plain("protected32", UD)
    world.save.ss.attributes |= 4
    world.save.ss.limit = world.save.rsp - 13
    assert delivered(world).rsp == world.save.rsp - 12
    world.save.ss.limit += 1
    assert deliver(world.save, world.event, world.memory).check.name == "stack limit"


def test_a_push_across_two_pages():
    world = plain("protected32", INT)
    world.save.rsp = STACKS.start + 0x1002
    outcome = delivered(world)
    assert outcome.writes[0] == (STACKS.start + 0xFFE, FLAGS.to_bytes(4, "little")[:2])
    assert outcome.writes[1] == (STACKS.start + 0x1000, FLAGS.to_bytes(4, "little")[2:])
    on_stack(world, outcome)


@pytest.mark.parametrize("mode", ["protected32", "long"])
def test_tables_across_two_pages(mode):
    """The IDT, the GDT and the TSS may start anywhere."""
    world = plain(mode, UD, cpl=3)
    expected = delivered(world)
    for table, size, register in ((IDT, 16, "idtr"), (GDT, 8, "gdtr"), (TSS, 8, "tr")):
        for shift in range(1, size):
            moved = plain(mode, UD, cpl=3)
            entry = {IDT: world.gate_at - IDT, GDT: CS_0, TSS: 4}[table]
            at = STACKS.start + 0x3000 - shift
            for offset in range(0, 8 if table == IDT and mode != "long" else size, 4):
                moved.put(at + offset, world.get(table + entry + offset, 4), 4)
            if table == TSS:
                moved.put(at + 4, world.get(TSS + 8, 4), 4)
            if table == GDT and mode != "long":
                moved.put(at + data_index(0) * 8 - CS_0, world.get(GDT + SS_0))
            getattr(moved.save, register).base = world.linear + at - entry
            outcome = delivered(moved)
            assert outcome[:6] == expected[:6]


@pytest.mark.parametrize("mode", ["protected32", "long"])
@pytest.mark.parametrize("row", VECTORS, ids=lambda row: row.mnemonic)
def test_the_pushed_flags_of_a_fault_have_rf_set(mode, row):
    world = plain(mode, Event(row.vector, EventType.EXCEPTION))
    world.event, world.vector = Event(row.vector, EventType.EXCEPTION), row.vector
    flags = delivered(world).frame.values[2 if mode == "long" else 0]
    assert bool(flags & RFLAGS.RF) == (row.kind is Kind.FAULT)
    assert delivered(world, sets_rf=False).frame.values[2 if mode == "long" else 0] == FLAGS


def test_what_is_pushed_as_rip():
    for event, rip in ((INT, 7), (Event(3, EventType.EXCEPTION), 7), (Event(4, EventType.EXCEPTION), 7), (UD, 0x1234)):
        world = plain("long", event)
        assert delivered(world, next_rip=7).frame.values[4] == rip
        assert delivered(world).frame.values[4] == 0x1234


def test_accessed_and_dirty_bits():
    world = plain("long", UD)
    stack = PT + 8 * (STACKS.start >> 12)
    for entry in (stack, PT + 8 * (IDT >> 12), PT + 8 * (GDT >> 12)):
        world.put(entry, world.get(entry) & ~(A | D))
    directory = PD + 8 * (world.linear >> 21 & 0x1FF)
    world.put(directory, world.get(directory) & ~A)
    world.put(world.code_at, world.get(world.code_at) & ~(1 << 40))
    outcome = delivered(world)
    after = Memory(stored(world, outcome))
    assert after.u64(stack) & (A | D) == A | D
    assert after.u64(PT + 8 * (IDT >> 12)) & (A | D) == A
    assert after.u64(PT + 8 * (GDT >> 12)) & (A | D) == A | D  # the descriptor's accessed bit was stored
    assert after.u64(directory) & A
    assert after.u64(world.code_at) & 1 << 40
    places = [gpa for gpa, _ in outcome.writes]
    assert places.count(directory) == 1, "a bit is set once"


def test_the_stack_descriptor_is_marked_accessed():
    world = plain("protected32", UD, cpl=3)
    world.put(GDT + SS_0, world.get(GDT + SS_0) & ~(1 << 40))
    outcome = delivered(world)
    assert (GDT + SS_0 + 5, b"\x93") in outcome.writes
    assert outcome.ss.attributes & 1


@pytest.mark.parametrize(("mode", "cpl"), [("long", 0), ("long", 3), ("v86", 3), ("protected32", 3), ("real", 0)])
def test_apply_writes_what_changed(mode, cpl):
    world = plain(mode, UD, cpl=cpl)
    before = {leaf.path: leaf.value for leaf in leaves(world.save)}
    outcome = delivered(world)
    apply(world.save, outcome)
    save = world.save
    assert (save.rip, save.rsp, save.rflags, save.cpl) == (outcome.rip, outcome.rsp, outcome.rflags, outcome.cpl)
    cs = save.cs
    assert SegmentState(cs.selector, cs.attributes, cs.limit, cs.base) == outcome.cs
    if outcome.ss is not None:
        assert (save.ss.selector, save.ss.attributes, save.ss.limit, save.ss.base) == outcome.ss
    changed = {leaf.path for leaf in leaves(save) if leaf.value != before[leaf.path]}
    allowed = ("rip", "rsp", "rflags", "cpl", "cs.", "ss.") + (("ds.", "es.", "fs.", "gs.") if mode == "v86" else ())
    assert all(path.startswith(allowed) for path in changed)
    if mode == "v86":
        assert save.gs.selector == save.gs.attributes == save.gs.base == 0


def test_smap_and_a_users_stack():
    """Below CPL 3 the program's AC opens user pages to its pushes; a user's AC does not."""
    for ac, cpl, allowed in ((True, 0, True), (False, 0, False), (True, 3, False)):
        world = plain("protected32", UD, cpl=cpl)
        world.put(0x1A000 + 4 * (world.linear >> 22), world.get(0x1A000 + 4 * (world.linear >> 22), 4) | US, 4)
        for page in range(STACKS.start, STACKS.stop, 0x1000):
            world.put(PT + 4 * (page >> 12), world.get(PT + 4 * (page >> 12), 4) | US, 4)
        world.save.cr4 |= CR4.SMAP
        world.save.rflags |= RFLAGS.AC if ac else 0
        outcome = deliver(world.save, world.event, world.memory)
        assert isinstance(outcome, Delivered) == allowed


def test_limits_are_the_last_bytes():
    """Tables and segments that end with the last byte that is needed are long enough."""
    world = plain("protected32", UD)
    world.save.idtr.limit, world.save.gdtr.limit = Vector.UD * 8 + 7, CS_0 + 7
    flat = world.get(world.code_at) & ~(0xFFFF | 0xF << 48 | 1 << 55)
    handler = HANDLERS + 0x456
    world.put(world.code_at, flat | handler & 0xFFFF | handler >> 16 << 48)
    assert delivered(world).rip == delivered(world).cs.limit == handler
    world = plain("protected32", UD, cpl=3)
    world.save.tr.limit = 11
    assert delivered(world).cpl == 0
    world = plain("long", UD, cpl=3, ist=1)
    world.save.idtr.limit, world.save.gdtr.limit, world.save.tr.limit = Vector.UD * 16 + 15, CS_0 + 7, 0x24 + 7
    assert delivered(world).cpl == 0


def test_a_16_bit_gate_has_16_bits_of_offset():
    world = plain("protected16", UD)
    world.put(world.gate_at, world.get(world.gate_at) | 0xABCD << 48)
    assert delivered(world).rip == 0x3456


def test_virtual_8086_mode_is_cpl_3():
    """Whatever the VMCB says: with RFLAGS.VM there is no other."""
    world = plain("v86", UD)
    world.save.cpl = 0
    assert delivered(world).cpl == 0
    assert delivered(world).nulled
    assert delivered(world).ss is not None


def test_a_clean_page_becomes_dirty():
    world = plain("long", UD)
    entry = PT + 8 * (STACKS.start >> 12)
    world.put(entry, world.get(entry) & ~D)
    assert Memory(stored(world, delivered(world))).u64(entry) & D


# -- INT n in virtual-8086 mode ----------------------------------------------------------------------------------------


def redirected(bit, *, iopl=0, more=0):
    world = plain("v86", INT, paging="none", kind=14)
    save = world.save
    save.cr4 |= CR4.VME
    save.rflags = RFLAGS.VM | RFLAGS.ALWAYS_ONE | iopl << 12 | more
    save.tr.limit = 0x200
    world.put(TSS + 102, 0x88, 2)
    world.put(TSS + 0x88 - 32 + 0x40 // 8, bit, 1)
    save.ss.base = ARENA
    return world


def test_a_clear_bit_stays_in_virtual_8086_mode():
    world = redirected(0, more=RFLAGS.VIF | RFLAGS.TF)
    outcome = delivered(world, next_rip=0x1236)
    assert (outcome.cpl, outcome.nulled, outcome.ss) == (3, False, None)
    # The vector table at 0 is full of HLT.
    assert (outcome.rip, outcome.cs.selector, outcome.cs.base) == (0xF4F4, 0xF4F4, 0xF4F40)
    flags = RFLAGS.ALWAYS_ONE | RFLAGS.TF | RFLAGS.IF | RFLAGS.IOPL
    assert outcome.frame.values == (flags, 0x1000, 0x1236)
    assert outcome.rflags == RFLAGS.VM | RFLAGS.ALWAYS_ONE, "VIF stands for IF"


def test_with_iopl_3_if_is_the_flag():
    world = redirected(0, iopl=3, more=RFLAGS.VIF | RFLAGS.IF)
    outcome = delivered(world)
    assert outcome.frame.values[0] == RFLAGS.ALWAYS_ONE | RFLAGS.IF | RFLAGS.IOPL
    assert outcome.rflags == RFLAGS.VM | RFLAGS.ALWAYS_ONE | RFLAGS.IOPL | RFLAGS.VIF
    world = redirected(0, more=RFLAGS.IF)
    assert not delivered(world).frame.values[0] & RFLAGS.IF


def test_a_set_bit_goes_to_protected_mode():
    assert delivered(redirected(1, iopl=3)).nulled
    outcome = deliver(redirected(1).save, INT, redirected(1).memory)
    assert (outcome.check.name, outcome.event.error_code) == ("IOPL", 0)


@pytest.mark.parametrize(("limit", "base"), [(102, 0x88), (0x200, 0x300), (0x200, 8)])
def test_a_tss_without_the_map(limit, base):
    world = redirected(0)
    world.save.tr.limit = limit
    world.put(TSS + 102, base, 2)
    outcome = deliver(world.save, world.event, world.memory)
    assert (outcome.check.name, outcome.event) == ("redirection map", Event(Vector.GP, EventType.EXCEPTION, 0))
    assert outcome.check in checks.REDIRECTED


# -- properties --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 0xFFF), st.sampled_from([UD, GP]), st.sampled_from([0, 3]))
def test_every_stack_of_long_mode_is_aligned(offset, event, cpl):
    world = plain("long", event, cpl=cpl)
    world.save.rsp = world.linear + STACKS.start + 0x1000 + offset
    outcome = delivered(world)
    assert (outcome.rsp + 8 * len(outcome.frame.values)) % 16 == 0
    on_stack(world, outcome)


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xF_FFFF), st.integers(0, 0xFFF))
def test_a_descriptor_gives_back_what_it_was_made_of(base, limit, attributes):
    value = descriptor(base, limit, attributes)
    assert descriptors.base(value) == base
    assert descriptors.attributes(value) == attributes
    assert descriptors.limit(value) == (limit << 12 | 0xFFF if attributes & 0x800 else limit)


@given(st.integers(0, 0xFFFF_FFFF), st.integers(0, 0xFFFF))
def test_a_gate_gives_back_its_offset(offset, selector):
    assert descriptors.gate_offset_32(gate(selector, offset, 14)) == offset
