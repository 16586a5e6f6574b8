import os

import pytest

from tests.interruptions import at_each_start
from trapline.errors import LaunchError
from trapline.processors.qemu.process import QemuProcess

MEMORY = 1 << 16


def started(*command):
    """Return a process that only gets QEMU's files."""
    return QemuProcess(lambda descriptors: list(command), monitor=MEMORY, firmware=b"firmware")


def test_what_is_no_program():
    with pytest.raises(LaunchError, match="could not be started: No such file or directory: /nowhere/qemu"):
        started("/nowhere/qemu")


def test_a_signal_while_it_is_started_leaves_no_process(monkeypatch):
    """It comes before anybody has the process's number."""
    numbers = at_each_start(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        started("/bin/sleep", "100")
    assert_gone(*numbers)


def test_one_that_becomes_nobodys_is_ended():
    qemu = started("/bin/sleep", "100")
    number = qemu.process.pid
    with qemu._closing:
        del qemu
        assert_gone(number)


def assert_gone(number):
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
