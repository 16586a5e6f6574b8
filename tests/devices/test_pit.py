"""The timer, by the sequences of kernels, and its counters as properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.devices import pit

FREQUENCY = 1_193_182
SECOND = 1_000_000_000


def tick(n):
    """Return the first nanosecond of tick `n`."""
    return -(-n * SECOND // FREQUENCY)


@pytest.fixture
def timer(pc):
    """With IRQ 0 as vector 0x20 and nothing else."""
    pc.init_pics(masks=(0xFE, 0xFF))
    return pc


def test_firmware_leaves_it_at_18_hz(timer):
    assert timer.machine.next_event() == tick(65536)
    timer.now = tick(65536) - 1
    assert timer.interrupts() == []
    timer.wait(1)
    assert timer.interrupts() == [0x20]
    assert timer.machine.next_event() == tick(2 * 65536)


@pytest.mark.parametrize("mode", [2, 3, 6, 7])
def test_a_hundred_hertz_for_a_second(timer, mode):
    timer.program_pit(0, mode, 11932)
    start, taken = timer.now, 0
    while (event := timer.machine.next_event()) <= start + SECOND:
        timer.wait(event - timer.now)
        taken += len(timer.interrupts())
    assert taken == FREQUENCY // 11932


def test_a_late_periodic_timer_interrupts_once_and_keeps_its_phase(timer):
    timer.program_pit(0, 2, 1000)
    timer.wait(tick(5500))
    assert timer.interrupts() == [0x20]
    assert timer.machine.next_event() == tick(6000)
    timer.wait(0)
    assert timer.interrupts() == []


def test_mode_0_interrupts_once(timer):
    timer.program_pit(0, 0, 1000)
    assert timer.machine.next_event() == tick(1000)
    timer.wait(tick(1000))
    assert timer.interrupts() == [0x20]
    assert timer.machine.next_event() is None
    timer.wait(SECOND)
    assert timer.interrupts() == []


def test_mode_4_strobes_one_clock_after_the_count(timer):
    timer.program_pit(0, 4, 1000)
    assert timer.machine.next_event() == tick(1001)
    timer.wait(tick(1001))
    assert timer.interrupts() == [0x20]
    assert timer.machine.next_event() is None


@pytest.mark.parametrize("mode", [1, 5])
def test_a_mode_that_waits_for_the_gate_never_starts_where_the_gate_is_high(timer, mode):
    timer.program_pit(0, mode, 1000)
    assert timer.machine.next_event() is None


def test_nothing_counts_between_the_control_word_and_the_count(timer):
    timer.outb(0x43, 0x34)
    assert timer.machine.next_event() is None
    assert timer.read_count(0) == 0
    timer.outb(0x43, 0xE2)
    assert timer.inb(0x40) == 0xF4  # OUT high, count not loaded, both bytes, mode 2
    timer.outb(0x40, 0x10)
    timer.wait(1000)
    assert timer.machine.next_event() is None
    timer.outb(0x40, 0x00)
    assert timer.machine.next_event() is not None


def test_a_masked_timer_is_no_event_but_its_edge_is_kept(timer):
    timer.outb(0x21, 0xFF)
    assert timer.machine.next_event() is None
    timer.now += 60_000_000
    timer.outb(0x21, 0xFE)
    assert timer.interrupts() == [0x20]


@pytest.mark.parametrize(
    ("access", "count", "expected"), [(1, 0x34, 0x34), (2, 0x12, 0x1200), (3, 0x1234, 0x1234), (3, 0, 0x10000)]
)
def test_counts_of_one_byte_or_two(timer, access, count, expected):
    timer.outb(0x43, access << 4 | 4)
    for byte in count.to_bytes(2, "little")[: 1 if access < 3 else 2]:
        timer.outb(0x40, byte)
    assert timer.machine.next_event() == tick(expected)
    read = [timer.inb(0x40) for _ in range(2)]
    assert read == {1: [0x34] * 2, 2: [0x12] * 2, 3: list((expected & 0xFFFF).to_bytes(2, "little"))}[access]


def test_a_latched_count_stays_until_it_is_read(timer):
    timer.program_pit(0, 2, 1000)
    timer.outb(0x43, 0x00)
    timer.wait(tick(10))
    timer.outb(0x43, 0x00)  # no effect: one is latched
    assert (timer.inb(0x40), timer.inb(0x40)) == (1000 & 0xFF, 1000 >> 8)
    assert timer.read_count(0) == 990


@pytest.mark.parametrize(("access", "expected"), [(1, [0xE8]), (2, [0x03])])
def test_a_latch_of_one_byte(timer, access, expected):
    timer.outb(0x43, 0x34)
    timer.program_pit(0, 2, 0)
    timer.outb(0x43, access << 4 | 4)
    timer.outb(0x40, expected[0])
    timer.outb(0x43, 0x00)
    timer.wait(tick(1))
    assert [timer.inb(0x40)] == expected
    assert timer.inb(0x40) == (expected[0] - 1 & 0xFF)


def test_read_back_of_status_and_count_of_several_channels(timer):
    timer.program_pit(0, 3, 0x1234)
    timer.program_pit(1, 0, 0x0101)
    timer.outb(0x43, 0xC6)
    timer.wait(tick(0x200))
    timer.outb(0x43, 0xE6)  # the status is latched already
    assert (timer.inb(0x40), timer.inb(0x40), timer.inb(0x40)) == (0xB6, 0x34, 0x12)
    assert (timer.inb(0x41), timer.inb(0x41), timer.inb(0x41)) == (0x30, 0x01, 0x01)
    timer.outb(0x43, 0xE4)
    assert timer.inb(0x41) == 0xB0  # the count is reached
    timer.outb(0x43, 0xD4)  # the count alone
    assert (timer.inb(0x41), timer.inb(0x41)) == (0x01, 0xFF)
    assert timer.inb(0x43) == 0


def test_read_back_leaves_other_channels_alone(timer):
    timer.program_pit(0, 2, 1000)
    timer.program_pit(1, 2, 1000)
    timer.outb(0x43, 0xD2)
    timer.wait(tick(500))
    assert [timer.inb(0x40), timer.inb(0x40)] == [1000 & 0xFF, 1000 >> 8]
    assert [timer.inb(0x41), timer.inb(0x41)] == [500 & 0xFF, 500 >> 8]


@pytest.mark.parametrize("mode", [0, 1])
def test_calibration_against_channel_2_as_linux_and_grub_do_it(pc, mode):
    pc.outb(0x61, pc.inb(0x61) & ~0x03)
    pc.program_pit(2, mode, FREQUENCY // 20)
    pc.outb(0x61, pc.inb(0x61) & ~0x02 | 0x01)
    start = pc.now
    while not pc.inb(0x61) & 0x20:
        pc.now += 10_000
    assert 50_000_000 <= pc.now - start < 50_020_000


def test_fast_calibration_reads_the_count_without_latching(pc):
    pc.outb(0x61, pc.inb(0x61) & ~0x02 | 0x01)
    pc.outb(0x43, 0xB0)
    pc.outb(0x42, 0xFF)
    pc.outb(0x42, 0xFF)
    seen = []
    for _ in range(40):
        pc.inb(0x42)
        seen.append(pc.inb(0x42))
        pc.now += 100_000
    assert seen[0] == 0xFF
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) > 15


def test_the_gate_pauses_mode_0_and_goes_on(pc):
    pc.outb(0x61, 1)
    pc.program_pit(2, 0, 1000)
    pc.wait(tick(100))
    pc.outb(0x61, 0)
    held = pc.read_count(2)
    pc.wait(SECOND)
    assert pc.read_count(2) == held
    assert not pc.inb(0x61) & 0x20
    pc.outb(0x61, 1)
    assert pc.read_count(2) == held
    pc.wait(tick(held + 1))
    assert pc.inb(0x61) & 0x20


@pytest.mark.parametrize("mode", [2, 3])
def test_the_gate_restarts_periodic_modes(pc, mode):
    pc.outb(0x61, 1)
    pc.program_pit(2, mode, 1000)
    pc.wait(tick(700))
    pc.outb(0x61, 0)
    assert pc.inb(0x61) & 0x21 == 0x20
    pc.wait(12345)
    pc.outb(0x61, 1)
    assert pc.read_count(2) == 1000


def test_a_gate_without_a_count_starts_nothing(pc):
    pc.outb(0x43, 0xB0)
    pc.outb(0x61, 1)
    pc.wait(SECOND)
    assert pc.read_count(2) == 0
    assert not pc.inb(0x61) & 0x20


def test_the_gate_triggers_mode_5_again(pc):
    pc.program_pit(2, 5, 1000)
    for _ in range(2):
        pc.outb(0x61, 1)
        pc.wait(tick(600))
        assert pc.read_count(2) <= 400
        pc.outb(0x61, 0)
        assert pc.read_count(2) <= 400  # the level of the gate does not matter
    pc.outb(0x61, 1)
    assert pc.read_count(2) == 1000


@pytest.mark.parametrize(
    ("mode", "levels"),
    [(0, "LLLLHHHHHH"), (2, "HHHLHHHLHH"), (3, "HHLLHHLLHH"), (4, "HHHHLHHHHH"), (5, "HHHHLHHHHH"), (1, "LLLLHHHHHH")],
)
def test_the_output_of_channel_2_clock_by_clock(pc, mode, levels):
    pc.outb(0x61, mode not in (1, 5))
    pc.program_pit(2, mode, 4)
    pc.outb(0x61, 1)
    seen = ""
    for n in range(len(levels)):
        pc.now = tick(n)
        seen += "H" if pc.inb(0x61) & 0x20 else "L"
    assert seen == levels


def test_the_speaker_and_the_refresh_bit(pc):
    pc.outb(0x61, 3)
    assert pc.inb(0x61) & 3 == 3
    changes, last = 0, pc.inb(0x61) & 0x10
    for _ in range(10_000):
        pc.now += 100
        changes += pc.inb(0x61) & 0x10 != last
        last = pc.inb(0x61) & 0x10
    assert changes == 1_000_000 // 15_085


@given(
    st.sampled_from([0, 2, 3, 4]),
    st.integers(1, 65536),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=20),
)
def test_counters_stay_in_range_and_edges_lie_ahead(build, mode, count, steps):
    pc = build()
    pc.init_pics(masks=(0xFE, 0xFF))
    pc.program_pit(0, mode, count)
    elapsed = 0
    for ns in steps:
        before = pc.machine.next_event()
        pc.now += ns
        elapsed = pc.now * FREQUENCY // SECOND
        value = pc.read_count(0)
        if mode in (2, 3):
            assert 0 <= value <= min(count, 0xFFFF)
        if mode == 2:
            assert value == count - elapsed % count & 0xFFFF
        if mode in (0, 4):
            assert value == count - elapsed & 0xFFFF
        due = before is not None and before <= pc.now
        assert pc.interrupts() == [0x20] * due
        event = pc.machine.next_event()
        assert event is None or pc.now < event <= pc.now + tick(count + 2)


@pytest.mark.parametrize("mode", [0, 2, 4])
def test_no_edge_is_lost_while_a_count_is_written(mode):
    """The clock goes on between two looks at it, here by more than the count."""
    looks, raised = [0], []

    def clock():
        looks[0] += SECOND // 1000
        return looks[0]

    timer = pit.Pit(clock, lambda level: raised.append(level))
    raised.clear()
    for port, value in ((pit.PORT + 3, 0x30 | mode << 1), (pit.PORT, 50), (pit.PORT, 0)):
        timer.write(port, 1, value)
    raised.clear()
    timer.advance()
    assert raised == [True, False]
