import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from trapline.api import run
from trapline.errors import ProcessorLost
from trapline.processors.unicorn import crash_guard, fatal_signals
from trapline.processors.unicorn.binding import Binding
from trapline.processors.unicorn.crash_guard import CrashGuard
from trapline.report.result import Ending

X87 = b"\xd8\xc1" * 240
"""fadd st, st(1)."""


class Processor:
    """What the guard needs of one."""

    def __init__(self):
        self.unanswered = 0.0
        self.abandoned = []

    def abandon(self, **how):
        self.abandoned.append(how)


@pytest.fixture
def processor():
    return Processor()


@pytest.fixture
def guard(processor, monkeypatch):
    monkeypatch.setattr(crash_guard, "_LOOK", 0.01)
    return CrashGuard(processor, lambda: "PLACE")


def actions():
    """Return what the fatal signals do."""
    libc, found = ctypes.PyDLL(None), []
    for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE):
        action = ctypes.create_string_buffer(512)
        libc.sigaction(number, None, action)
        found.append(action.raw[:8])  # the handler: of the rest not all is written
    return found


def test_what_the_function_returns_and_raises_comes_out(guard, processor):
    before = actions()
    thread, during, here = guard.run(lambda: (threading.get_ident(), actions(), guard.is_running_here()), None)
    assert thread != threading.get_ident()
    assert during != before
    assert (here, guard.is_running_here()) == (True, False)
    with pytest.raises(LookupError, match="no idea"):
        guard.run(lambda: {}["no idea"], None)
    assert actions() == before
    assert processor.abandoned == []


def test_two_guards_at_once_and_what_signals_do_afterwards(guard):
    before = actions()
    inner = guard.run(lambda: guard.run(actions, None) == actions() != before, None)
    assert inner
    assert actions() == before


def test_ctrl_c_interrupts_the_guest_and_is_raised(guard, processor):
    over = threading.Event()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        guard.run(lambda: over.wait(60), over.set)
    assert over.is_set()
    assert processor.abandoned == []


def test_a_guest_that_does_not_end_is_given_up(guard, processor, monkeypatch):
    monkeypatch.setattr(crash_guard, "_GRACE", 3)
    never = threading.Event()
    ended = []

    def execute():
        try:
            while not never.wait(0.01):
                pass
        finally:
            ended.append(never.is_set())

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        guard.run(execute, lambda: None)
    assert processor.abandoned == [{"crashed": False, "executing": False}]
    end = time.monotonic() + 60
    while not ended and time.monotonic() < end:
        time.sleep(0.01)
    assert ended == [False]  # its thread does not outlive it


def test_unicorn_hangs(guard, processor, monkeypatch):
    hanging = threading.Event()
    monkeypatch.setattr(crash_guard, "_UNANSWERED", 1.0)
    monkeypatch.setattr(fatal_signals, "is_executing", lambda thread: True)
    threading.Timer(0.2, setattr, (processor, "unanswered", 1.0)).start()
    with pytest.raises(ProcessorLost, match="Unicorn hangs in the block of code at PLACE; try --processor qemu"):
        guard.run(lambda: hanging.wait(60), lambda: None)
    assert processor.abandoned == [{"crashed": False, "executing": True}]
    hanging.set()


def test_a_callback_may_take_its_time(guard, processor):
    processor.unanswered = 100.0
    assert guard.run(lambda: time.sleep(0.3) or 7, None) == 7


def test_it_is_known_whether_unicorn_executes(start):
    guest = start("again:", ("jmp", "again"))
    seen = []
    main = threading.get_ident()
    look = threading.Timer(0.5, lambda: seen.append(fatal_signals.is_executing(main)))
    look.start()
    guest.run(1.5)
    look.join()
    assert seen == [True]
    assert not fatal_signals.is_executing(main)


def test_what_is_raised_in_a_crashed_thread_does_not_wake_it(monkeypatch):
    """As when a hang is given up just as it crashes: to return from the handler would be to crash again."""
    died, calls = crash_guard._Worker._died, []

    def interrupted(worker, number):
        calls.append(number)
        if len(calls) == 1:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(SystemExit))
            for _ in range(1000):
                pass
        died(worker, number)

    monkeypatch.setattr(crash_guard._Worker, "_died", interrupted)
    assert run(X87, entry_mode=64, survive_crashes=True, timeout=60).ending is Ending.FAILED
    assert calls == [signal.SIGSEGV] * 2


def test_one_process_survives_many_crashes():
    before = actions()
    for _ in range(3):
        done = run(X87, entry_mode=64, survive_crashes=True, timeout=60)
        assert (done.ending, type(done.error)) == (Ending.FAILED, ProcessorLost)
    assert actions() == before


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
@pytest.mark.parametrize("watched", [True, False])
def test_elsewhere_signals_do_what_they_did(number, watched):
    """In Python code of the watched thread, and in another one."""
    script = f"""
import os, threading
from trapline.processors.unicorn.fatal_signals import watched
def die(): signal.pthread_kill(threading.get_ident(), {number:d})
import signal
with watched(print):
    if {watched}: die()
    else:
        thread = threading.Thread(target=die)
        thread.start(); thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


def test_an_abandoned_cpu_is_never_freed():
    binding = Binding()
    binding.abandon()
    del binding  # frees nothing: a crash here would be the end of the tests
    assert run(b"\xf4", entry_mode=64).ending is Ending.HALTED
