import importlib
import signal
import sys
import threading
import time

import pytest

from trapline.cli import termination as termination_module
from trapline.cli.termination import Termination


@pytest.fixture(autouse=True)
def _handlers():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        assert signal.getsignal(number) == handler


@pytest.fixture
def restored():
    """Put back what signals did before the test."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_each_signal_interrupts_and_has_its_exit_code(number, code, restored):
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)  # the tests may run under nohup
    with Termination() as termination:
        assert not termination.came
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert (termination.exit_code, termination.came) == (code, number != signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Termination() as termination:
            signal.raise_signal(signal.SIGHUP)
        assert not termination.came
    finally:
        signal.signal(signal.SIGHUP, before)


def test_where_ctrl_c_is_ignored_the_others_are_not():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Termination() as termination:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert termination.exit_code == 143
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_has_no_signals():
    def enter():
        with Termination():
            done.append(signal.getsignal(signal.SIGTERM))

    done = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]


class Finalised:
    """What is interrupted in its finalizer."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
        for _ in range(1000):
            pass


def test_an_interrupt_that_a_finalizer_loses_comes_again(restored):
    hook = sys.unraisablehook

    def interrupt():
        Finalised()
        time.sleep(60)

    with Termination() as termination, pytest.raises(KeyboardInterrupt):
        interrupt()
    assert termination.exit_code == 143
    assert sys.unraisablehook is hook


INTERRUPTED = """
import signal
for _ in range({times}):
    signal.raise_signal({number})
WHOLE = True
"""


@pytest.fixture
def interrupted_module(tmp_path, monkeypatch):
    """Return a function that imports a module to which a signal comes meanwhile."""
    monkeypatch.syspath_prepend(tmp_path)
    name = "interrupted_module"

    def interrupted_module(number, module=name, times=1):
        (tmp_path / f"{name}.py").write_text(INTERRUPTED.format(number=int(number), times=times))
        importlib.import_module(module)

    yield interrupted_module
    sys.modules.pop(name, None)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupt_is_raised_at_the_end_of_an_import(interrupted_module, restored, number, code):
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
    with Termination() as termination, pytest.raises(KeyboardInterrupt):
        interrupted_module(number)
    assert sys.modules["interrupted_module"].WHOLE
    assert sys.getprofile() is None
    assert termination.exit_code == code


def test_the_import_may_be_one_of_an_import(interrupted_module, tmp_path, restored):
    (tmp_path / "outer_module.py").write_text("import interrupted_module\nWHOLE = True\n")
    with Termination(), pytest.raises(KeyboardInterrupt):
        interrupted_module(signal.SIGINT, "outer_module")
    assert sys.modules.pop("outer_module").WHOLE


def test_a_second_interrupt_does_not_wait(interrupted_module, restored):
    with Termination(), pytest.raises(KeyboardInterrupt):
        interrupted_module(signal.SIGINT, times=2)
    assert "interrupted_module" not in sys.modules


def test_an_import_that_takes_too_long_is_interrupted(interrupted_module, restored, monkeypatch):
    monkeypatch.setattr(termination_module, "_LONGEST_IMPORT", 0.0)
    with Termination(), pytest.raises(KeyboardInterrupt):
        interrupted_module(signal.SIGINT)
    assert "interrupted_module" not in sys.modules


def test_what_is_run_by_an_import_can_be_interrupted(tmp_path, monkeypatch):
    """As by a script that calls the command line as it is imported."""
    (tmp_path / "importing_module.py").write_text(
        "import signal\n"
        "from trapline.cli.termination import Termination\n"
        "with Termination():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("importing_module")


def test_no_interrupt_is_sent_again_when_it_is_over(restored):
    with Termination():
        Finalised()
    time.sleep(0.2)  # a KeyboardInterrupt would be raised here


def test_another_error_of_a_finalizer_is_shown_as_ever(restored, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)

    class Failing:
        def __del__(self):
            raise ValueError

    with Termination():
        Failing()
    assert [one.exc_type for one in seen] == [ValueError]
