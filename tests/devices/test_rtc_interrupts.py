"""IRQ 8, by the sequences of kernels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

SECOND = 1_000_000_000


@pytest.fixture
def rtc(pc):
    """With IRQ 8 as vector 0x28 and nothing else."""
    pc.init_pics(masks=(0xFB, 0xFE))
    return pc


def read(pc, index):
    pc.outb(0x70, index)
    return pc.inb(0x71)


def write(pc, index, value):
    pc.outb(0x70, index)
    pc.outb(0x71, value)


def enable(pc, bits):
    write(pc, 0x8B, read(pc, 0x8B) | bits)


def test_nothing_is_enabled_at_first(rtc):
    assert rtc.machine.next_event() is None
    rtc.wait(SECOND)
    assert rtc.interrupts() == []
    assert read(rtc, 0x0C) == 0x50  # it happened all the same
    assert read(rtc, 0x0C) == 0x00


@pytest.mark.parametrize(("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)])
def test_the_periodic_interrupt(rtc, rate, hertz):
    write(rtc, 0x0A, 0x20 | rate)
    enable(rtc, 0x40)
    taken = 0
    while (event := rtc.machine.next_event()) <= SECOND:
        rtc.now = event
        rtc.machine.advance()
        taken += len(rtc.interrupts())
        assert rtc.machine.next_event() is None  # not before status C is read
        assert read(rtc, 0x0C) & 0xC0 == 0xC0
    assert taken == hertz


def test_unread_it_does_not_come_again(rtc):
    enable(rtc, 0x40)
    rtc.wait(SECOND)
    assert rtc.interrupts() == [0x28]
    rtc.wait(SECOND)
    assert rtc.interrupts() == []
    read(rtc, 0x0C)
    rtc.wait(SECOND)
    assert rtc.interrupts() == [0x28]


@pytest.mark.parametrize("status_a", [0x20, 0x66])
def test_without_a_rate_or_with_the_divider_held_it_never_comes(rtc, status_a):
    write(rtc, 0x0A, status_a)
    enable(rtc, 0x40)
    assert rtc.machine.next_event() is None
    rtc.wait(SECOND)
    assert rtc.interrupts() == []


def test_the_update_interrupt_comes_with_the_second(rtc):
    rtc.now = 300
    enable(rtc, 0x10)
    assert rtc.machine.next_event() == SECOND
    rtc.wait(SECOND - 301)
    assert rtc.interrupts() == []
    rtc.wait(1)
    assert rtc.interrupts() == [0x28]
    assert read(rtc, 0x0C) & 0x90 == 0x90
    assert rtc.machine.next_event() == 2 * SECOND


def test_setting_the_time_ends_the_update_interrupt(rtc):
    enable(rtc, 0x10)
    enable(rtc, 0x80)
    assert read(rtc, 0x0B) == 0x82
    rtc.wait(2 * SECOND)
    assert rtc.interrupts() == []
    assert not read(rtc, 0x0C) & 0x10


@pytest.mark.parametrize(
    ("alarm", "status_b", "second"),
    [
        ((0x05, 0x00, 0x00), 0x22, 5),
        ((0x00, 0x01, 0xFF), 0x22, 60),
        ((0x00, 0x00, 0x81), 0x20, 13 * 3600),
        ((0xC0, 0xC0, 0xC0), 0x22, 1),
        ((0x30, 59, 23), 0x26, 23 * 3600 + 59 * 60 + 0x30),
    ],
)
def test_the_alarm(rtc, alarm, status_b, second):
    for index, value in zip((1, 3, 5), alarm, strict=True):
        write(rtc, index, value)
    write(rtc, 0x0B, status_b)
    assert rtc.machine.next_event() == SECOND
    rtc.wait(second * SECOND - 1)
    assert rtc.interrupts() == []
    rtc.wait(1)
    assert rtc.interrupts() == [0x28]
    assert read(rtc, 0x0C) & 0xA0 == 0xA0


def test_an_alarm_that_was_slept_through_comes_late_and_once(rtc):
    for index in (1, 3, 5):
        write(rtc, index, 0x07)
    enable(rtc, 0x20)
    rtc.wait(5 * 86_400 * SECOND)
    assert rtc.interrupts() == [0x28]
    read(rtc, 0x0C)
    rtc.wait(3600 * SECOND)
    assert rtc.interrupts() == []


def test_enabling_what_has_happened_interrupts_at_once(rtc):
    rtc.wait(SECOND)
    read(rtc, 0x0B)
    enable(rtc, 0x10)
    assert rtc.interrupts() == [0x28]


def test_a_reset_forgets(rtc):
    enable(rtc, 0x70)
    rtc.wait(SECOND)
    rtc.machine.reset()
    assert read(rtc, 0x0C) == 0
    assert read(rtc, 0x0B) == 0x02


@given(st.lists(st.integers(1, 3 * SECOND), max_size=20), st.sampled_from([0x10, 0x20, 0x40, 0x70]))
def test_an_event_is_ahead_and_is_kept(build, steps, enabled):
    pc = build()
    pc.init_pics(masks=(0xFB, 0xFE))
    for index in (1, 3, 5):
        write(pc, index, 0xFF)
    enable(pc, enabled)
    for ns in steps:
        event = pc.machine.next_event()
        assert pc.now < event <= pc.now + SECOND
        pc.wait(ns)
        assert pc.interrupts() == [0x28] * (pc.now >= event)
        read(pc, 0x0C)
