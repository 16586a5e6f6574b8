import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.interruptions import after_lines
from trapline.processors.qemu import child as module
from trapline.processors.qemu.child import Child

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def start():
    with contextlib.ExitStack() as stack:

        def start(script):
            process = stack.enter_context(subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE))
            child = Child(process)
            stack.callback(child.end, 0.0)
            return child

        yield start


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", -9)])
def test_how_it_ended(start, script, code):
    child = start(script)
    assert child.wait(20) == child.poll() == child.returncode == code
    child.end(0)
    child.end(0)
    assert child.returncode == code


def test_it_runs(start):
    child = start("exec sleep 100")
    before = time.monotonic()
    assert child.poll() is child.wait(0.05) is None
    assert time.monotonic() - before >= 0.05
    child.end(20)
    assert child.returncode == -signal.SIGTERM


def test_what_does_not_end_is_killed(start):
    child = start(STUBBORN)
    assert child._process.stdout.readline() == b"ready\n"
    child.end(0.1)
    assert child.returncode == -signal.SIGKILL


def test_what_is_nobodys_is_killed():
    process = subprocess.Popen(["/bin/sh", "-c", STUBBORN], stdout=subprocess.PIPE)
    with process.stdout:
        child = Child(process)
        assert process.stdout.readline() == b"ready\n"
        del child
    assert not Path(f"/proc/{process.pid}").exists()


def test_signals_of_children_may_be_ignored(start):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        child = start("exit 7")
        assert child.wait(20) == 0
        child.end(0)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exec sleep 100", -signal.SIGTERM)])
def test_what_is_raised_at_any_moment_of_a_look_does_not_keep_it_from_its_end(start, script, code):
    """Popen's own lock stays taken after one such moment."""
    child = start(script)
    if code == 7:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    lines = 0
    while interrupted(child, lines):
        lines += 1
    assert lines > 2
    child.end(20)
    assert child.returncode == code


def interrupted(child, lines):
    """Look whether it has ended; raise KeyboardInterrupt after some lines, and return whether there are so many."""
    try:
        with after_lines(module, lines, interrupt):
            child.poll()
    except KeyboardInterrupt:
        return True
    return False


def interrupt():
    raise KeyboardInterrupt
