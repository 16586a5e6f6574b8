import itertools

import pytest

from trapline.arch.layout import size_of
from trapline.arch.msr import IOPM_SIZE, MSRPM_SIZE
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import RECORD_SIZE
from trapline.processors.qemu import shared
from trapline.processors.qemu.shared import Mailbox, Tables

PAGE, MIB = 0x1000, 1 << 20
REGIONS = {
    "VMCB": (shared.VMCB_AT, size_of(Vmcb)),
    "host save area": (shared.HSAVE_AT, PAGE),
    "stack": (shared.STACK_AT, PAGE),
    "mailbox": (shared.MAILBOX_AT, size_of(Mailbox)),
    "code": (shared.CODE_AT, shared.TABLES_AT - shared.CODE_AT),
    "tables": (shared.TABLES_AT, size_of(Tables)),
    "PML4": (shared.PML4_AT, PAGE),
    "PDPT": (shared.PDPT_AT, PAGE),
    "MSRPM": (shared.MSRPM_AT, MSRPM_SIZE),
    "IOPM": (shared.IOPM_AT, IOPM_SIZE),
    "scratch": (shared.SCRATCH_AT, PAGE),
    "ring": (shared.RING_AT, shared.RING_RECORDS * RECORD_SIZE),
    "nested tables": (shared.NESTED_AT, MIB),
    **{f"BIOS piece {number}": (place, MIB) for number, place in enumerate(shared.BIOS_PIECES)},
}


@pytest.mark.parametrize("name", REGIONS)
def test_no_byte_lies_behind_the_a20_gate(name):
    start, size = REGIONS[name]
    first, last = shared.BASE + start, shared.BASE + start + size - 1
    assert first >> 20 == last >> 20  # within one mebibyte,
    assert not first & MIB  # an even one


@pytest.mark.parametrize("name", REGIONS)
def test_every_region_begins_on_a_page_and_ends_inside(name):
    start, size = REGIONS[name]
    assert start % PAGE == 0
    assert start + size <= shared.SIZE


def test_regions_do_not_overlap():
    for (one, first), (two, second) in itertools.combinations(REGIONS.items(), 2):
        assert first[0] + first[1] <= second[0] or second[0] + second[1] <= first[0], f"{one} and {two}"


def test_the_stack_ends_where_the_mailbox_begins():
    assert shared.STACK_AT + PAGE == shared.MAILBOX_AT


def test_the_memory_is_a_naturally_aligned_bar():
    assert shared.SIZE & shared.SIZE - 1 == 0
    assert shared.BASE % shared.SIZE == 0
    assert shared.BASE + shared.SIZE <= 1 << 40


def test_the_ring_is_a_power_of_two():
    assert shared.RING_RECORDS & shared.RING_RECORDS - 1 == 0
    assert RECORD_SIZE == 0x80


def test_the_mark_of_an_injection_is_a_bit_that_eventinj_reserves():
    assert shared.BY_PYTHON & 0x7FFF_F000 == shared.BY_PYTHON


def test_the_views_copy_nothing(memory):
    views = shared.Shared(memory)
    views.vmcb.save.rip = 0x1122
    views.gprs.r15 = 0x3344
    views.plans[14].arm = 0x55
    views.msrpm[0], views.iopm[0], views.ring[0] = 1, 2, 3
    assert memory[shared.VMCB_AT + 0x400 + 0x178] == 0x22
    assert views.mailbox.gprs.r15 == 0x3344
    assert views.mailbox.plans[14].arm == 0x55
    assert [memory[place] for place in (shared.MSRPM_AT, shared.IOPM_AT, shared.RING_AT)] == [1, 2, 3]
    assert len(views.ring) == shared.RING_RECORDS * RECORD_SIZE
