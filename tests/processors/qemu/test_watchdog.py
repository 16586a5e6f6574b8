import pytest

from trapline.processors.qemu import watchdog
from trapline.processors.qemu.watchdog import Watchdog, resumable, slowness

OURS = ("qemu", "-mon", "chardev=trapline.qmp,mode=control")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr(watchdog, "slowness", lambda: clock.slowness)
    clock.slowness = 1.0
    return clock


@pytest.fixture
def watch(clock, shared):
    """Return a function that tells what is said, second by second, of a monitor that is silent."""

    def watch(seconds, states, command=OURS):
        dog = Watchdog(command, shared.mailbox, lambda: states(clock.now - 1000))
        said = []
        for _ in range(seconds):
            clock.now += 1
            said.append(dog.complaint(1000.0))
        return said

    return watch


def running(second):
    return "running"


def first(said):
    """Return the second at which something was said first."""
    return next((second for second, words in enumerate(said, 1) if words is not None), None)


def test_a_silent_monitor_is_given_up(watch):
    said = watch(40, running)
    assert 20 <= first(said) <= 23
    assert "QEMU has not executed trapline's firmware" in said[first(said) - 1]


def test_how_far_it_came_is_told(watch, shared):
    shared.mailbox.features = 1
    said = watch(40, running)
    assert "the CPU does not get from the firmware to the monitor" in said[first(said) - 1]


def test_a_slow_machine_has_more_time(watch, clock):
    clock.slowness = 4.0
    assert 80 <= first(watch(90, running)) <= 83


def test_a_qemu_that_does_not_answer_is_given_up_too(watch):
    assert 20 <= first(watch(40, lambda second: None)) <= 23


@pytest.mark.parametrize("state", ["prelaunch", "paused"])
def test_a_paused_machine_is_told_at_once(watch, state):
    said = watch(10, lambda second: state)
    assert first(said) <= 4
    assert said[first(said) - 1] == "QEMU is paused (-S), and nothing was given that could resume it"


def test_who_can_resume_it_has_all_the_time(watch):
    said = watch(400, lambda second: "prelaunch" if second < 300 else "running", (*OURS, "-S", "-s"))
    assert 317 <= first(said) <= 324  # 20 seconds after it was last seen paused


def test_another_silence_begins_anew(clock, shared):
    dog = Watchdog((*OURS, "-s"), shared.mailbox, lambda: "paused" if clock.now < 1100 else "running")
    for _ in range(100):
        clock.now += 1
        assert dog.complaint(1000.0) is None
    begin = clock.now
    assert dog.complaint(begin) is None
    clock.now += 30
    assert dog.complaint(begin) is not None


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), False),
        (("-S",), False),
        (("-S", "-s"), True),
        (("-S", "--gdb", "tcp::1"), True),
        (("-monitor", "stdio"), True),
        (("-serial", "mon:stdio"), True),
        (("-mon", "mine"), True),
        (("-nographic",), True),
    ],
)
def test_what_resumes_a_machine(options, found):
    assert resumable((*OURS, *options)) == found


def test_no_machine_is_faster_than_a_fast_one():
    assert slowness() >= 1.0
