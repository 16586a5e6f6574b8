import signal
import threading

import pytest

from trapline.processors.unicorn.interruption import Interruption


@pytest.fixture
def handled(monkeypatch):
    """The handler of SIGINT notes each signal."""
    handled = []
    before = signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
    yield handled
    signal.signal(signal.SIGINT, before)


def test_a_signal_waits_until_unicorn_stopped(handled):
    stops = []
    interruption = Interruption(lambda: stops.append(1), lambda: True)
    signal.raise_signal(signal.SIGINT)
    assert (handled, stops, interruption.pending) == ([], [1], True)
    interruption.take()
    assert (handled, interruption.pending) == ([signal.SIGINT], False)
    interruption.close()


def test_a_signal_is_handled_at_once_where_nothing_runs(handled):
    interruption = Interruption(lambda: None, lambda: False)
    signal.raise_signal(signal.SIGINT)
    assert (handled, interruption.pending) == ([signal.SIGINT], False)
    interruption.close()


def test_close_puts_the_handler_back(handled):
    before = signal.getsignal(signal.SIGINT)
    interruption = Interruption(lambda: None, lambda: True)
    assert signal.getsignal(signal.SIGINT) != before
    interruption.close()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_handler_of_somebody_else_stays(handled):
    interruption = Interruption(lambda: None, lambda: True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.close()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize("kept", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_no_function_stays(handled, kept):
    signal.signal(signal.SIGINT, kept)
    interruption = Interruption(lambda: None, lambda: True)
    assert signal.getsignal(signal.SIGINT) == kept
    interruption.close()
    assert signal.getsignal(signal.SIGINT) == kept


def test_other_threads_change_no_handler(handled):
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: Interruption(lambda: None, lambda: True).close())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) == before
