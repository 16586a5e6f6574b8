"""Records that go to somebody who reads them meanwhile, or does not."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import time

import pytest

from tests.lines import records
from trapline.api import Machine
from trapline.hypervisor.stop import StopReason
from trapline.session.stream import Stream, is_stream

FULL = 4 << 20
"""More than a pipe holds, in bytes."""
LINE = b"x" * 99 + b"\n"
UD_FOR_EVER = bytes.fromhex("c7061800117c c7061a000000 bc0070 0f0b 83c406 ebf9")
"""Real mode: #UD again and again."""
SOON = 0.3
LATE = 15


@pytest.fixture
def fifo(tmp_path):
    path = tmp_path / "records.fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def pipe():
    """A stream into a pipe, and the reader's end."""
    read, write = os.pipe()
    stream = Stream("-o x", lambda: os.dup(write))
    yield stream, read
    for descriptor in (read, write):
        os.close(descriptor)
    stream.close()


def held(reader):
    """Return how many bytes a pipe holds."""
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), "little")


def elapsed(act):
    begin = time.monotonic()
    act()
    return time.monotonic() - begin


def test_what_is_read_arrives_in_order(pipe):
    stream, read = pipe
    got = bytearray()

    def take():
        while len(got) < FULL:
            got.extend(os.read(read, 1 << 16))

    reader = threading.Thread(target=take)
    reader.start()
    data = os.urandom(FULL)
    for place in range(0, FULL, 50_000):
        assert stream.write(data[place : place + 50_000]) == len(data[place : place + 50_000])
    reader.join()
    assert got == data


@pytest.mark.parametrize("way", ["deadline", "hurry"])
def test_a_reader_that_stalls_is_waited_for_no_longer(pipe, caplog, way):
    stream, _ = pipe
    since = time.monotonic()
    if way == "deadline":
        stream.begin(since + SOON)
    else:
        threading.Timer(SOON, stream.hurry).start()
    stream.write(LINE * 10_000)
    assert SOON / 2 < time.monotonic() - since < LATE
    assert elapsed(lambda: [stream.write(LINE) for _ in range(200)]) < LATE / 3
    assert elapsed(stream.close) < LATE
    (message,) = [record.getMessage() for record in caplog.records]
    held = 65_536 // len(LINE)
    assert message == f"-o x: the last {10_200 - held:,} lines were not written, for nobody read them in time"


def test_a_slow_reader_gets_all_in_the_next_run(pipe, caplog):
    stream, read = pipe
    stream.begin(time.monotonic())
    stream.write(LINE * 1000)
    stream.begin(None)
    taken = []
    reader = threading.Thread(target=lambda: taken.extend(os.read(read, 4096) for _ in range(25)))
    reader.start()
    stream.write(LINE)
    reader.join()
    while len(b"".join(taken)) < 1001 * len(LINE):
        taken.append(os.read(read, 4096))
    stream.close()
    assert b"".join(taken) == LINE * 1001
    assert caplog.records == []


def test_a_reader_that_is_gone_is_an_error():
    read, write = os.pipe()
    os.close(read)
    stream = Stream("-o x", lambda: write)
    with pytest.raises(BrokenPipeError):
        stream.write(LINE)
    stream.close()


def test_what_a_stream_is(fifo, tmp_path):
    (tmp_path / "file").touch()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert is_stream(os.fstat(ours.fileno()).st_mode, ours.fileno())
    assert is_stream(fifo.stat().st_mode)
    assert not is_stream((tmp_path / "file").stat().st_mode)
    assert not is_stream(os.stat(os.devnull).st_mode)  # noqa: PTH116


@pytest.mark.parametrize("has_reader", [True, False])
def test_a_run_ends_with_its_time_whoever_reads(fifo, caplog, has_reader):
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
    reasons = []
    try:
        with Machine(UD_FOR_EVER, entry_mode=16, exceptions="all", processor="unicorn", output=fifo) as m:
            assert elapsed(lambda: reasons.append(m.run(timeout=1).reason)) < LATE
            assert m.session.recorder.tally.total >= (100 if has_reader else 1)
    finally:
        if reader is not None:
            os.close(reader)
    assert reasons == [StopReason.TIMEOUT]
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("not written, for nobody read them in time")


def test_a_run_may_be_read_as_it_goes(fifo):
    got = []

    def read():
        with fifo.open() as lines:
            got.extend(lines)

    reader = threading.Thread(target=read)
    reader.start()
    with Machine(UD_FOR_EVER, entry_mode=16, exceptions="all", processor="unicorn", output=fifo) as m:
        for _ in range(2):
            assert m.run(timeout=0.5).reason is StopReason.TIMEOUT
        recorded = m.session.recorder.tally.total
    reader.join()
    assert [record["seq"] for record in records("".join(got))] == list(range(recorded))


@pytest.mark.parametrize("survives", [True, False])
def test_ctrl_c_while_nobody_reads(fifo, tmp_path, survives):
    image = tmp_path / "guest.bin"
    image.write_bytes(UD_FOR_EVER)
    command = [sys.executable, "-m", "trapline", "run", str(image), "--entry-mode", "16", "-o", str(fifo)]
    if not survives:
        code = "import sys, trapline; trapline.run(sys.argv[1], entry_mode=16, output=sys.argv[2])"
        command = [sys.executable, "-c", code, str(image), str(fifo)]
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        before, now = 0, held(reader)
        while not before == now > 0:  # the next record finds no room
            assert time.monotonic() < end
            time.sleep(0.5)
            before, now = now, held(reader)
        process.send_signal(signal.SIGINT)
        words = process.communicate(timeout=60)[1]
    finally:
        os.close(reader)
    assert "lines were not written, for nobody read them in time" in words
    if survives:
        assert process.returncode == 130
        assert "guest: interrupted after" in words
        assert "Traceback" not in words
