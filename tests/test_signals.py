import signal
import threading
import time

import pytest

from tests.interruptions import after_lines
from trapline import signals as module
from trapline.signals import HeldSignals, InterruptLater

LONG = 60
NUMBERS = (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Raised(Exception):
    """What a handler raises."""


def raising(number, frame):
    raise Raised(number)


@pytest.fixture(autouse=True)
def _handlers():
    """SIGINT and SIGUSR1 raise, SIGUSR2 is ignored; afterwards they do so still."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    wanted = dict(zip(NUMBERS, (raising, raising, signal.SIG_IGN), strict=True))
    for number, handler in wanted.items():
        signal.signal(number, handler)
    try:
        yield
        assert {number: signal.getsignal(number) for number in NUMBERS} == wanted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_handled_afterwards(number):
    done = []

    def act():
        with HeldSignals():
            signal.raise_signal(number)
            done.append(number)

    with pytest.raises(Raised, match=str(int(number))):
        act()
    assert done == [number]


def test_one_that_is_ignored_stays_so():
    with HeldSignals():
        signal.raise_signal(signal.SIGUSR2)


def test_each_is_handled():
    seen = []
    for number in NUMBERS[:2]:
        signal.signal(number, lambda number, frame: seen.append(number))
    with HeldSignals():
        for number in (*NUMBERS[:2], NUMBERS[0]):
            signal.raise_signal(number)
        assert seen == []
    assert seen == [*NUMBERS[:2], NUMBERS[0]]
    for number in NUMBERS[:2]:
        signal.signal(number, raising)


def test_an_error_is_raised_with_what_a_signal_raises():
    def act():
        with HeldSignals():
            signal.raise_signal(signal.SIGINT)
            raise ValueError

    with pytest.raises(Raised) as caught:
        act()
    assert isinstance(caught.value.__context__, ValueError)


def test_wherever_it_is_interrupted_signals_do_what_they_did():
    lines = 0
    while interrupted(lines):
        for number in NUMBERS[:2]:
            with pytest.raises(Raised, match=str(int(number))):
                signal.raise_signal(number)
            signal.signal(number, raising)
        lines += 1
    assert lines > 10


def interrupted(lines):
    """Open and close it; raise SIGUSR1 after some lines outside of its body, and say whether there are so many."""
    try:
        with after_lines(module, lines, lambda: signal.raise_signal(signal.SIGUSR1)), HeldSignals():
            pass
    except Raised:
        return True
    return False


def test_another_thread_leaves_them():
    def hold():
        with HeldSignals():
            seen.append(signal.getsignal(signal.SIGINT))

    seen = []
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert seen == [raising]


def test_the_first_ctrl_c_asks_and_is_handled_afterwards():
    done = []

    def act():
        with InterruptLater(lambda: done.append("asked"), LONG):
            signal.raise_signal(signal.SIGINT)
            done.append("went on")

    with pytest.raises(Raised):
        act()
    assert done == ["asked", "went on"]


def test_the_second_is_handled_at_once():
    done = []

    def act():
        with InterruptLater(lambda: done.append("asked"), LONG):
            signal.raise_signal(signal.SIGINT)
            done.append("went on")
            signal.raise_signal(signal.SIGINT)
            done.append("went on")

    with pytest.raises(Raised):
        act()
    assert done == ["asked", "went on"]


def test_it_is_handled_when_the_code_does_not_end_for_it():
    def act():
        with InterruptLater(lambda: None, 0.01):
            signal.raise_signal(signal.SIGINT)
            time.sleep(LONG)

    since = time.monotonic()
    with pytest.raises(Raised):
        act()
    assert time.monotonic() - since < LONG


def test_code_that_has_ended_is_not_interrupted_again():
    for _ in range(2):
        with pytest.raises(Raised), InterruptLater(lambda: None, 0.01):
            signal.raise_signal(signal.SIGINT)
    with InterruptLater(lambda: None, 0.01):
        time.sleep(0.1)


def test_a_ctrl_c_that_is_ignored_asks_for_nothing():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with InterruptLater(lambda: pytest.fail("it asked"), LONG):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, raising)


def test_what_a_handler_does_is_done_at_once():
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        with InterruptLater(lambda: pytest.fail("it asked"), LONG):
            signal.raise_signal(signal.SIGINT)
            assert seen == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, raising)


def test_wherever_a_ctrl_c_comes_it_is_handled_and_the_next_one_is():
    lines = 0
    while ctrl_c_after(lines):
        with pytest.raises(Raised):
            signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, raising)
        lines += 1
    assert lines > 5


def ctrl_c_after(lines):
    """Open and close it, with a Ctrl-C after some lines outside of its body; say whether there are so many."""
    came = []

    def interrupt():
        came.append(True)
        signal.raise_signal(signal.SIGINT)

    try:
        with after_lines(module, lines, interrupt), InterruptLater(lambda: None, LONG):
            pass
    except Raised:
        assert came
        return True
    assert not came
    return False


def test_another_thread_is_not_interrupted():
    def act():
        with InterruptLater(lambda: None, LONG):
            seen.append(signal.getsignal(signal.SIGINT))

    seen = []
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert seen == [raising]
