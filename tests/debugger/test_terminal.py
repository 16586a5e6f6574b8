"""`trapline gdb` on a terminal: what is typed there is gdb's."""

import ctypes
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.runs import LIMIT, alive, children

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")]
TGKILL = 234
"""Linux's number of a system call that sends a signal to one thread."""
CONTROLLING = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words):
        self._terminal, end = pty.openpty()
        command = [sys.executable, "-c", CONTROLLING, sys.executable, "-m", "trapline", *map(str, words)]
        plain = {**os.environ, "TERM": "dumb"}  # gdb 16 colours what it prints
        self.process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True, env=plain)
        os.close(end)
        self._text, self._place = "", 0

    def type(self, text):
        os.write(self._terminal, text.encode())

    def expect(self, text):
        """Wait until a text is printed, after the last one that was expected."""
        deadline = time.monotonic() + LIMIT
        while (place := self._text.find(text, self._place)) < 0:
            ready = select.select([self._terminal], [], [], deadline - time.monotonic())[0]
            assert ready, f"{text!r} is not in {self._text[self._place :]!r}"
            self._text += os.read(self._terminal, 4096).decode(errors="replace")
        self._place = place + len(text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def start(tmp_path):
    """Return a function that starts gdb on a guest that does nothing, once."""
    (tmp_path / "spin").write_bytes(b"\xeb\xfe")

    def start():
        return Terminal("gdb", tmp_path / "spin", "--entry-mode", "16", "--gdb-options=-nx -ex 'set confirm off'")

    return start


def test_ctrl_c_and_ctrl_z(start):
    with start() as terminal:
        terminal.expect("(gdb) ")
        terminal.type("continue\n")
        terminal.expect("Continuing.")
        terminal.type("\x03")
        terminal.expect("Program received signal SIGINT")
        terminal.expect("(gdb) ")
        terminal.type("\x1a")
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.type("print/x $pc\n")
        terminal.expect("$1 = 0x7c00")
        terminal.type("quit\n")
        terminal.expect("guest: interrupted")
        assert terminal.process.wait(LIMIT) == 130


@pytest.mark.parametrize("runs", [False, True], ids=["at the prompt", "while it runs"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_trapline_ends_gdb(start, number, status, runs):
    with start() as terminal:
        terminal.expect("(gdb) ")
        if runs:
            terminal.type("continue\n")
            terminal.expect("Continuing.")
        (gdb,) = children(terminal.process.pid)
        terminal.process.send_signal(number)
        terminal.expect("guest: interrupted")
        assert terminal.process.wait(LIMIT) == status
        assert not alive(gdb)


def test_a_signal_that_another_thread_takes_ends_gdb(start):
    """As does one that comes just before the loop waits: neither ends the wait."""
    with start() as terminal:
        terminal.expect("(gdb) ")
        process = terminal.process.pid
        first, thread, *_ = sorted(int(task.name) for task in Path(f"/proc/{process}/task").iterdir())
        assert first == process
        assert ctypes.CDLL(None).syscall(TGKILL, process, thread, signal.SIGINT) == 0
        terminal.expect("guest: interrupted")
        assert terminal.process.wait(LIMIT) == 130


def test_gdb_that_has_killed_the_guest_goes_on(start):
    with start() as terminal:
        terminal.expect("(gdb) ")
        terminal.type("kill\n")
        terminal.expect("(gdb) ")
        terminal.type("print 6 * 7\n")
        terminal.expect("$1 = 42")
        terminal.type("quit\n")
        terminal.expect("guest: interrupted")
        assert terminal.process.wait(LIMIT) == 130
