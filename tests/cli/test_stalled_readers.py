"""A reader of the console that stalls holds up neither the time-out nor Ctrl-C."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

TEXT = b"\xba\xf8\x03\x00\x00\xb0\x61\xee\xeb\xfd"
"""mov edx, 0x3f8; mov al, 'a'; again: out dx, al; jmp again."""
LIMIT = 60
SIZE = 4096
"""Bytes of the smallest pipe: it is full after one write."""


@pytest.fixture
def pipe(tmp_path):
    """A named pipe, and its reading end that nobody reads."""
    name = tmp_path / "pipe"
    os.mkfifo(name)
    reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, SIZE)
    yield name, reader
    os.close(reader)


def wait_until_full(reader):
    end = time.monotonic() + LIMIT
    while not struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0]:
        assert time.monotonic() < end, "the pipe is empty"
        time.sleep(0.05)


@pytest.mark.parametrize("end", ["timeout", "interrupt"])
@pytest.mark.parametrize("what", ["console", "stdout"])
def test_a_stalled_reader(pipe, tmp_path, what, end):
    name, reader = pipe
    image = tmp_path / "guest.bin"
    image.write_bytes(TEXT)
    options = ["--console", name] if what == "console" else []
    options += ["--entry-mode", "32", "--timeout", "4" if end == "timeout" else "1000"]
    with name.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", "trapline", "run", image, *options],
            stdout=stdout if what == "stdout" else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    wait_until_full(reader)
    if end == "interrupt":
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)
    assert "Traceback" not in said
    assert process.returncode == (1 if end == "timeout" else 130), said
    if end == "timeout":
        assert "its reader does not read" in said
    else:
        assert "guest: interrupted after" in said
