import signal
import threading

import pytest

from trapline.processors.unicorn.sigint import DeferredSigint


@pytest.fixture
def handled(monkeypatch):
    """The handler of SIGINT notes each signal."""
    handled = []
    before = signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
    yield handled
    signal.signal(signal.SIGINT, before)


def test_a_signal_waits_until_unicorn_stopped(handled):
    stops = []
    sigint = DeferredSigint(lambda: stops.append(1), lambda: True)
    signal.raise_signal(signal.SIGINT)
    assert (handled, stops, sigint.pending) == ([], [1], True)
    sigint.take()
    assert (handled, sigint.pending) == ([signal.SIGINT], False)
    sigint.close()


def test_a_signal_is_handled_at_once_where_nothing_runs(handled):
    sigint = DeferredSigint(lambda: None, lambda: False)
    signal.raise_signal(signal.SIGINT)
    assert (handled, sigint.pending) == ([signal.SIGINT], False)
    sigint.close()


def test_close_puts_the_handler_back(handled):
    before = signal.getsignal(signal.SIGINT)
    sigint = DeferredSigint(lambda: None, lambda: True)
    assert signal.getsignal(signal.SIGINT) != before
    sigint.close()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_handler_of_somebody_else_stays(handled):
    sigint = DeferredSigint(lambda: None, lambda: True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sigint.close()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize("kept", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_no_function_stays(handled, kept):
    signal.signal(signal.SIGINT, kept)
    sigint = DeferredSigint(lambda: None, lambda: True)
    assert signal.getsignal(signal.SIGINT) == kept
    sigint.close()
    assert signal.getsignal(signal.SIGINT) == kept


def test_other_threads_change_no_handler(handled):
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=lambda: DeferredSigint(lambda: None, lambda: True).close())
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) == before


def test_another_thread_closes_and_the_handler_hands_signals_on(handled):
    sigint = DeferredSigint(lambda: None, lambda: False)
    thread = threading.Thread(target=sigint.close)
    thread.start()
    thread.join()
    signal.raise_signal(signal.SIGINT)
    assert handled == [signal.SIGINT]
    sigint.close()
