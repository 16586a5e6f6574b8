"""The line of the guest's serial port, with the other end in this process."""

import os
from pathlib import Path

import pytest

from trapline.session.console import Console
from trapline.session.serial import SerialLine


@pytest.fixture(params=[(), ("-monitor", "stdio")], ids=["pipes", "socket"])
def line(request):
    return SerialLine(request.param)


def other_end(line):
    """Return what QEMU reads from and writes to."""
    if line.files.inherited:
        (end,) = line.files.inherited
        return os.dup(end), os.dup(end)
    return os.dup(line.files.stdin), os.dup(line.files.stdout)


def test_both_directions(line):
    read, write = other_end(line)
    line.close_other_end()
    console = Console()
    line.connect(console)
    os.write(write, b"from the guest")
    assert console.wait(b"from the guest", 0, 60)
    console.write(b"to the guest")
    assert os.read(read, 100) == b"to the guest"
    os.write(write, b", the last of it")
    os.close(read)
    os.close(write)
    line.close()
    assert console.output == b"from the guest, the last of it"


def test_a_line_that_never_led_anywhere_is_closed(line):
    before = set(Path("/proc/self/fd").iterdir())
    line.close_other_end()
    line.close()
    closed = before - set(Path("/proc/self/fd").iterdir())
    assert len(closed) == (3 if line.files.inherited else 4)


def test_a_pipe_holds_what_nobody_has_read_yet():
    line = SerialLine(())
    for _ in range(60_000):  # byte by byte, as QEMU writes it
        os.write(line.files.stdout, b"x")
    console = Console()
    line.connect(console)
    line.close_other_end()
    line.close()
    assert console.output == 60_000 * b"x"


def test_input_after_the_end_is_an_error(line):
    line.close_other_end()
    console = Console()
    line.connect(console)
    with pytest.raises(BrokenPipeError):
        console.write(b"anybody?")
    line.close()
