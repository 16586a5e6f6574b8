"""The clock and the memory sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

SECOND = 1_000_000_000
MILLENNIUM = [0x00, 0x00, 0x00, 0x07, 0x01, 0x01, 0x00, 0x20]
"""Saturday, 1 January 2000, in BCD."""


def read(pc, index):
    pc.outb(0x70, index)
    return pc.inb(0x71)


def write(pc, index, value):
    pc.outb(0x70, index)
    pc.outb(0x71, value)


def time(pc):
    return [read(pc, index) for index in (0, 2, 4, 6, 7, 8, 9, 0x32)]


def test_it_begins_with_the_year_2000(pc):
    assert time(pc) == MILLENNIUM
    pc.now += (13 * 3600 + 59 * 60 + 58) * SECOND
    assert time(pc)[:3] == [0x58, 0x59, 0x13]
    assert read(pc, 0x37) == 0x20
    pc.machine.reset()
    assert time(pc)[:3] == [0x58, 0x59, 0x13]


def test_the_epoch_is_the_time_at_virtual_time_0(build):
    assert time(build(epoch=1_000_000_000)) == [0x40, 0x46, 0x01, 0x01, 0x09, 0x09, 0x01, 0x20]


@pytest.mark.parametrize(
    ("status_b", "hours"),
    [
        (0x02, {0: 0x00, 11: 0x11, 12: 0x12, 23: 0x23}),
        (0x06, {0: 0, 11: 11, 12: 12, 23: 23}),
        (0x00, {0: 0x12, 11: 0x11, 12: 0x92, 23: 0x91}),
        (0x04, {0: 12, 11: 11, 12: 0x8C, 23: 0x8B}),
    ],
)
def test_bcd_or_binary_with_12_hours_or_24(pc, status_b, hours):
    write(pc, 0x0B, status_b)
    for hour, shown in hours.items():
        pc.now = hour * 3600 * SECOND
        assert read(pc, 4) == shown
        write(pc, 4, shown)  # what was read may be written
        assert read(pc, 4) == shown


def test_it_is_set_as_linux_does_it(pc):
    write(pc, 0x0B, read(pc, 0x0B) | 0x80)
    for index, value in zip((0, 2, 4, 7, 8, 9, 0x32), (0x30, 0x15, 0x08, 0x24, 0x12, 0x99, 0x19), strict=True):
        write(pc, index, value)
    pc.now += 5 * SECOND
    assert time(pc)[:3] == [0x30, 0x15, 0x08]  # it stands still
    assert not read(pc, 0x0A) & 0x80
    write(pc, 0x0B, read(pc, 0x0B) | 0x80)
    assert time(pc)[:3] == [0x30, 0x15, 0x08]
    write(pc, 0x0B, read(pc, 0x0B) & ~0x80)
    pc.now += SECOND
    assert time(pc) == [0x31, 0x15, 0x08, 0x06, 0x24, 0x12, 0x99, 0x19]


def test_a_field_may_be_set_while_it_runs_and_nonsense_changes_nothing(pc):
    write(pc, 8, 0x13)
    assert time(pc) == MILLENNIUM
    write(pc, 0, 0x42)
    assert time(pc)[0] == 0x42
    write(pc, 0x37, 0x21)
    assert read(pc, 0x32) == 0x21


def test_the_update_bit_comes_before_the_second(pc):
    assert not read(pc, 0x0A) & 0x80
    pc.now = SECOND - 2_228_000 - 1
    assert read(pc, 0x0A) == 0x26
    pc.now += 1
    assert read(pc, 0x0A) == 0xA6
    pc.now = SECOND
    assert read(pc, 0x0A) == 0x26


def test_status_registers(pc):
    assert [read(pc, index) for index in (0x0A, 0x0B, 0x0C, 0x0D)] == [0x26, 0x02, 0x00, 0x80]
    write(pc, 0x0A, 0xAF)
    write(pc, 0x0C, 0xFF)
    write(pc, 0x0D, 0x00)
    assert [read(pc, index) for index in (0x0A, 0x0C, 0x0D)] == [0x2F, 0x00, 0x80]


def test_other_bytes_are_memory_until_the_reset(pc):
    write(pc, 0x0F, 0x0A)
    assert read(pc, 0x0F) == 0x0A
    assert read(pc, 0x8F) == 0x0A  # bit 7 of the index is not part of it
    assert pc.inb(0x70) == 0xFF
    pc.machine.reset()
    assert read(pc, 0x0F) == 0x00


@pytest.mark.parametrize(
    ("memory", "base", "extended", "above_16m", "above_4g"),
    [
        (512 << 10, 512, 0, 0, 0),
        (8 << 20, 640, 7 << 10, 0, 0),
        (128 << 20, 640, 0xFFFF, 0x0700, 0),
        (3 << 30, 640, 0xFFFF, 0xBF00, 0),
        (8 << 30, 640, 0xFFFF, 0xBF00, 0x14000),
    ],
)
def test_memory_sizes(build, memory, base, extended, above_16m, above_4g):
    pc = build(memory)

    def number(first, count):
        return sum(read(pc, first + n) << 8 * n for n in range(count))

    assert number(0x15, 2) == base
    assert number(0x17, 2) == number(0x30, 2) == extended
    assert number(0x34, 2) == above_16m
    assert number(0x5B, 3) == above_4g


@given(
    st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255), st.integers(0, 10**19)), max_size=30),
    st.integers(-(10**12), 10**12),
)
def test_whatever_is_written_the_clock_shows_a_time(build, writes, epoch):
    pc = build(epoch=epoch)
    for index, value, ns in writes:
        pc.now += ns
        write(pc, index, value)
    write(pc, 0x0B, 0x06)
    second, minute, hour, weekday, day, month, year, century = time(pc)
    assert second < 60
    assert minute < 60
    assert hour < 24
    assert 1 <= weekday <= 7
    assert 1 <= day <= 31
    assert 1 <= month <= 12
    assert year < 100
    assert century < 100
