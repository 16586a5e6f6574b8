import signal
import threading

import pytest

from tests.interruptions import after_lines
from trapline import signals as module
from trapline.signals import HeldSignals

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
