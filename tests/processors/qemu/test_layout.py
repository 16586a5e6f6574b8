import itertools

import pytest

from trapline.arch.layout import size_of
from trapline.arch.msr import IOPM_SIZE, MSRPM_SIZE
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import RECORD_SIZE
from trapline.processors.qemu import layout
from trapline.processors.qemu.layout import Mailbox, Tables

PAGE, MIB = 0x1000, 1 << 20
REGIONS = {
    "VMCB": (layout.VMCB_AT, size_of(Vmcb)),
    "host save area": (layout.HSAVE_AT, PAGE),
    "stack": (layout.STACK_AT, PAGE),
    "mailbox": (layout.MAILBOX_AT, size_of(Mailbox)),
    "code": (layout.CODE_AT, layout.TABLES_AT - layout.CODE_AT),
    "tables": (layout.TABLES_AT, size_of(Tables)),
    "page tables": (layout.PML4_AT, layout.ENTRY_TABLES_SIZE),
    "page tables of the firmware": (layout.ENTRY_TABLES_AT, layout.ENTRY_TABLES_SIZE),
    "MSRPM": (layout.MSRPM_AT, MSRPM_SIZE),
    "IOPM": (layout.IOPM_AT, IOPM_SIZE),
    "scratch": (layout.SCRATCH_AT, PAGE),
    "ring": (layout.RING_AT, layout.RING_RECORDS * RECORD_SIZE),
    "nested tables": (layout.NESTED_AT, MIB),
    "pages of the firmware": (layout.BIOS_PAGES_AT, MIB),
}


BASES = (layout.LOW_BASE, *map(layout.base_for, layout.ADDRESS_BITS))


@pytest.mark.parametrize("name", REGIONS)
def test_no_byte_lies_behind_the_a20_gate(name):
    start, size = REGIONS[name]
    for base in BASES:
        first, last = base + start, base + start + size - 1
        assert first >> 20 == last >> 20  # within one mebibyte,
        assert not first & MIB  # an even one


@pytest.mark.parametrize("name", REGIONS)
def test_every_region_begins_on_a_page_and_ends_inside(name):
    start, size = REGIONS[name]
    assert start % PAGE == 0
    assert start + size <= layout.SIZE


def test_regions_do_not_overlap():
    for (one, first), (two, second) in itertools.combinations(REGIONS.items(), 2):
        assert first[0] + first[1] <= second[0] or second[0] + second[1] <= first[0], f"{one} and {two}"


def test_the_stack_ends_where_the_mailbox_begins():
    assert layout.STACK_AT + PAGE == layout.MAILBOX_AT


def test_the_memory_is_a_naturally_aligned_bar():
    assert layout.SIZE & layout.SIZE - 1 == 0
    for bits, base in zip(layout.ADDRESS_BITS, BASES[1:], strict=True):
        assert base % layout.SIZE == 0
        assert 1 << 32 <= base < base + layout.SIZE <= 1 << bits


@pytest.mark.parametrize(("bits", "base"), [(36, 0x8_0000_0000), (39, 0x40_0000_0000), (40, 1 << 39), (52, 1 << 39)])
def test_the_memory_is_in_the_middle_of_the_address_space(bits, base):
    assert layout.base_for(bits) == base


def test_the_ring_is_a_power_of_two():
    assert layout.RING_RECORDS & layout.RING_RECORDS - 1 == 0
    assert RECORD_SIZE == 0x100


def test_the_mark_of_an_injection_is_a_bit_that_eventinj_reserves():
    assert layout.BY_PYTHON & 0x7FFF_F000 == layout.BY_PYTHON


def test_the_views_copy_nothing(memory):
    views = layout.SharedMemory(memory)
    views.vmcb.save.rip = 0x1122
    views.gprs.r15 = 0x3344
    views.plans[14].arm = 0x55
    views.msrpm[0], views.iopm[0], views.ring[0] = 1, 2, 3
    assert memory[layout.VMCB_AT + 0x400 + 0x178] == 0x22
    assert views.mailbox.gprs.r15 == 0x3344
    assert views.mailbox.plans[14].arm == 0x55
    assert [memory[place] for place in (layout.MSRPM_AT, layout.IOPM_AT, layout.RING_AT)] == [1, 2, 3]
    assert len(views.ring) == layout.RING_RECORDS * RECORD_SIZE
