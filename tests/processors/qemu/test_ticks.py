"""The frequency of the time stamp counter is measured, or unknown where the host is too busy."""

import time

import pytest

from trapline.processors.qemu.layout import Command, Mailbox
from trapline.processors.qemu.ticks import Ticks, rounded


class Monitor:
    """A monitor that answers after some time, and its mailbox."""

    def __init__(self, frequency, after):
        self.mailbox = Mailbox()
        self._frequency, self._after = frequency, after

    def call(self, command):
        assert command is Command.NOTE_TSC
        wanted = time.perf_counter_ns() + self._after
        while (now := time.perf_counter_ns()) < wanted:
            pass
        self.mailbox.tsc = now * self._frequency // 1_000_000_000 & (1 << 64) - 1


@pytest.mark.parametrize("frequency", [2_445_406_000, 62_500_000])
def test_it_is_measured(frequency):
    monitor = Monitor(frequency, 0)
    found = Ticks(["qemu"], monitor, monitor.mailbox).frequency()
    assert found == pytest.approx(frequency, rel=0.005)


@pytest.mark.parametrize(("frequency", "after"), [(2_400_000_000, 10_000_000), (0, 0)])
def test_a_busy_host_and_a_counter_that_stands_have_none(frequency, after):
    monitor = Monitor(frequency, after)
    assert Ticks(["qemu"], monitor, monitor.mailbox).frequency() is None


def test_instructions_are_counted_as_nanoseconds():
    assert Ticks(["qemu", "-icount", "shift=1"], None, None).frequency() == 1_000_000_000


def test_digits_that_are_not_known_are_left_out():
    assert [rounded(frequency) for frequency in (2_445_406_123, 2_999_961_000, 999, -1)] == [
        2_445_000_000,
        3_000_000_000,
        999,
        None,
    ]
