"""However a run ends, what was recorded can be read and nothing stays behind."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time

import pytest

from tests.acceptance.runs import LIMIT, TRAPLINE, alive, command, read_lines, trapline, wait_for
from trapline.errors import UsageError
from trapline.trace.files import open_trace
from trapline.trace.files.writer import FORMATS, VIEWS

TURNS = 100_000
"""Of an empty loop before each exception: some thousands are recorded in a second."""
GUEST_ENDS = 4_000_000_000
"""Exceptions: never, for a test."""
PACKET = 1 << 3 | 2
"""The tag of a packet in a trace of Perfetto."""


@pytest.fixture(scope="session")
def guest(image):
    """A guest that runs for ever and raises #UD now and then."""
    return image("udloop", N=GUEST_ENDS, WAIT=TURNS)


@pytest.fixture
def running(start, guest, tmp_path):
    """Return a function that starts the guest and waits until records are written."""

    def running(*options, **process):
        output = tmp_path / "records.jsonl"
        run = start(command(guest, "all", "-o", str(output), *options), **process)
        wait_for(lambda: output.exists() and output.stat().st_size > 100_000, "records")
        run.output = output
        return run

    return running


def recorded(run):
    """Return how many exceptions the summary speaks of."""
    return int(re.search(r"^([\d,]+) exceptions? recorded", run.words, re.MULTILINE)[1].replace(",", ""))


def test_qemu_is_killed(running):
    run = running()
    qemu = run.qemu
    os.kill(qemu, signal.SIGKILL)
    assert run.wait() == 1
    assert run.complaints() == ["trapline: QEMU was killed by SIGKILL"]
    assert "Traceback" not in run.words
    assert "guest: failed after" in run.words
    assert len(read_lines(run.output)) == recorded(run)
    run.assert_nothing_is_left(qemu)


def test_qemu_is_told_to_end(running):
    run = running()
    qemu = run.qemu
    os.kill(qemu, signal.SIGTERM)
    assert run.wait() == 1
    assert run.complaints() == [f"trapline: QEMU was ended by SIGTERM, which process {os.getpid()} sent"]
    assert "guest: failed after" in run.words
    assert len(read_lines(run.output)) == recorded(run)
    run.assert_nothing_is_left(qemu)


def test_trapline_is_killed(start, guest, tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("zstandard")
    pytest.importorskip("perfetto")
    files = [tmp_path / f"records{form.suffix}" for form in (*FORMATS, *VIEWS)]
    guests = [shutil.copy(guest, tmp_path / f"guest{number}.img") for number in range(len(files))]  # QEMU locks its own
    runs = [start(command(own, "all", "-o", str(file))) for own, file in zip(guests, files, strict=True)]
    for file in files:
        wait_for(lambda file=file: len(numbers(file)) > 100, "records")
    before = [len(numbers(file)) for file in files]
    for file, count in zip(files, before, strict=True):
        wait_for(
            lambda file=file, count=count: len(numbers(file)) > count, "more records"
        )  # they are written as it runs
    qemus = [run.qemu for run in runs]
    for run in runs:
        run.process.kill()
    wait_for(lambda: not any(map(alive, qemus)), "the end of QEMU")
    for run, file, count in zip(runs, files, before, strict=True):
        assert run.wait() == -signal.SIGKILL
        run.assert_nothing_is_left()
        found = numbers(file)
        assert len(found) > count
        assert found == list(range(len(found)))
        if file.suffix != ".pftrace":
            done = trapline("report", str(file), "--json")
            assert (done.status, json.loads(done.console)["total"]) == (0, len(found))
            assert trapline("explain", str(file)).status == 0


def numbers(file):
    """Return the numbers of the records that can be read."""
    if file.suffix == ".pftrace":
        return sorted(shown(file.read_bytes())) if file.exists() else []
    try:
        with open_trace(file) as trace:
            return [number for batch in trace.batches(["seq"]) for number in batch.column(0).to_pylist()]
    except UsageError:  # it is not begun
        return []


def shown(data):
    """Yield the numbers of the exceptions in a trace of Perfetto, which may be cut off."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket

    names = {}
    while len(data) > 1 and data[0] == PACKET:
        size, at = data[1] & 0x7F, 2
        while data[at - 1] & 0x80 and at < len(data):
            size |= (data[at] & 0x7F) << 7 * (at - 1)
            at += 1
        if len(data) < at + size:
            return
        packet, data = TracePacket.FromString(data[at : at + size]), data[at + size :]
        names |= {each.iid: each.name for each in packet.interned_data.debug_annotation_names}
        for each in packet.track_event.debug_annotations:
            if names[each.name_iid] == "record":
                yield each.uint_value


ENDS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_trapline_is_told_to_end(running, number, status):
    run = running()
    qemu = run.qemu
    run.process.send_signal(number)
    assert run.wait() == status
    assert "guest: interrupted after" in run.words
    assert "Traceback" not in run.words
    assert run.complaints() == []
    assert len(read_lines(run.output)) == recorded(run)
    run.assert_nothing_is_left(qemu)


@pytest.mark.parametrize(("number", "status"), [*ENDS, (signal.SIGINT, 130)])
@pytest.mark.parametrize("mask", ["all", "none"])
def test_trapline_is_told_to_end_in_process(start, image, tmp_path, number, status, mask):
    output, console = tmp_path / "records.jsonl", tmp_path / "console.txt"
    guest = image("udloop", N=GUEST_ENDS, BARE=1, WAIT=1)  # says BEGIN
    options = ("--processor", "unicorn", "--entry-mode", "16", "-e", mask, "-o", str(output), "--console", str(console))
    run = start([*TRAPLINE, "run", str(guest), *options])
    if mask == "all":
        wait_for(lambda: output.exists() and output.stat().st_size > 100_000, "records")
    else:
        wait_for(lambda: console.exists() and console.read_bytes(), "the guest", LIMIT)
    run.process.send_signal(number)
    assert run.wait() == status
    assert "guest: interrupted after" in run.words
    assert "Traceback" not in run.words
    assert len(read_lines(output)) == (recorded(run) if mask == "all" else 0)
    run.assert_nothing_is_left()


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_trapline_in_the_background_is_told_to_end(running, number, status):
    """A shell starts such a job with SIGINT ignored."""
    run = running(prepare=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    qemu = run.qemu
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert run.process.poll() is None
    run.process.send_signal(number)
    assert run.wait() == status
    assert len(read_lines(run.output)) == recorded(run)
    run.assert_nothing_is_left(qemu)


def test_nohup_is_respected(running):
    run = running(prepare=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    qemu = run.qemu
    run.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 143
    run.assert_nothing_is_left(qemu)


def test_the_terminal_goes_away(running):
    """SIGHUP comes to the whole group, and the summary can be written nowhere."""
    ours, theirs = pty.openpty()
    run = running(stdout=theirs, stderr=theirs, prepare=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0))
    os.close(theirs)
    qemu = run.qemu
    os.close(ours)
    assert run.wait() == 129
    assert len(read_lines(run.output)) > 100
    run.assert_nothing_is_left(qemu)


def test_a_signal_before_the_guest_runs(start, guest, tmp_path):
    slow = tmp_path / "qemu"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    run = start(command(guest, "all", "--qemu", str(slow)))
    program = run.qemu
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 143
    assert "Traceback" not in run.words
    run.assert_nothing_is_left(program)


WHILE_IT_FORKS = """
import hashlib, os, signal, sys
from functools import partial
assert "logging" not in sys.modules  # whose lock is given back after these
number, forks = int(sys.argv.pop(1)), []
os.register_at_fork(after_in_child=partial(os.kill, os.getpid(), number))
os.register_at_fork(after_in_parent=partial(hashlib.pbkdf2_hmac, "sha256", b"", b"", 2_000_000))
from trapline.cli.main import main
sys.exit(main())
"""
"""Trapline, to which the process that it forks sends a signal, and which stays in C for a while then."""


@pytest.mark.parametrize(("number", "status"), [*ENDS, (signal.SIGINT, 130)])
def test_a_signal_while_qemu_is_forked(start, guest, tmp_path, number, status):
    slow = tmp_path / "qemu"
    slow.write_text("#!/bin/sh\nexec sleep 100\n")
    slow.chmod(0o755)
    options = command(guest, "all", "--qemu", str(slow))[len(TRAPLINE) :]
    run = start([sys.executable, "-c", WHILE_IT_FORKS, str(number), *options])
    program = run.qemu
    assert run.wait() == status
    assert "Traceback" not in run.words
    run.assert_nothing_is_left(program)


@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "trapline alone"])
def test_ctrl_c(running, whole_group):
    run = running()
    qemu = run.qemu
    if whole_group:
        os.killpg(run.process.pid, signal.SIGINT)
    else:
        run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130
    assert "guest: interrupted after" in run.words
    assert "Traceback" not in run.words
    assert run.complaints() == []
    assert len(read_lines(run.output)) == recorded(run)
    run.assert_nothing_is_left(qemu)


def test_ctrl_c_with_json(running, tmp_path):
    with (tmp_path / "summary.json").open("w") as out:
        run = running("--json", stdout=out)
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.wait() == 130
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["ending"], summary["exit_code"]) == ("interrupted", 130)
    assert len(read_lines(run.output)) == summary["recorded"]


@pytest.mark.parametrize("mask", ["all", "none"])
def test_the_time_is_up(start, guest, mask):
    run = start(command(guest, mask, "--timeout", "1.5"))
    qemu = run.qemu
    assert run.wait() == 124
    assert "guest: timeout after 1." in run.words
    run.assert_nothing_is_left(qemu)


def test_the_disk_is_full(start, guest, small_disk):
    output = small_disk / "records.jsonl"
    run = start(command(guest, "all", "-o", str(output)))
    qemu = run.qemu
    assert run.wait() == 1
    complaint = "No space left on device; what was recorded before is kept"
    assert run.complaints() == [f"trapline: {output}: {complaint}"]
    assert "Traceback" not in run.words
    assert "guest: failed after" in run.words
    if output.is_file():
        assert len(read_lines(output)) > 100
    run.assert_nothing_is_left(qemu)


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for some hundred records; who may not mount one gets /dev/full in its place."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=256k", "trapline-test", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        (folder / "records.jsonl").symlink_to("/dev/full")
        yield folder
    else:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)


def test_nobody_reads_the_summary(start, image):
    run = start(command(image("count"), "all", "--json"), stdout=subprocess.PIPE)
    run.process.stdout.close()
    assert run.wait() == 1
    assert "Traceback" not in run.words
    assert "BrokenPipe" not in run.words


def test_nobody_reads_the_console(start, image):
    run = start(command(image("count"), "all"), stdout=subprocess.PIPE)
    run.process.stdout.close()
    assert run.wait() == 0  # the guest ends as it would have
    assert "guest: debug exit" in run.words


def test_nobody_reads_what_is_said_live(start, guest):
    run = start(command(guest, "all", "--live"), stderr=subprocess.PIPE)
    qemu = run.qemu
    assert run.process.stderr.readline().startswith(b"#UD")
    run.process.stderr.close()
    assert run.wait() == 1
    run.assert_nothing_is_left(qemu)
