import io
import json
import os
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.errors import TraplineError
from trapline.machine.record import Record
from trapline.symbols import Symbol
from trapline.trace.columns import view
from trapline.trace.exceptions import Exceptions
from trapline.trace.files.output import LineOutput
from trapline.trace.recorder import BLACK_BOX, Recorder, RecordingError

SIZE = len(bytes(Record()))


def numbered(make_record, count, start=0):
    return b"".join(make_record(vector=number % 8, rip=number) for number in range(start, start + count))


class FullDisk(io.StringIO):
    """Holds a few characters; tells of more when it is flushed, as a file does."""

    name = "records.jsonl"

    def __init__(self, room):
        super().__init__()
        self.room = room

    def flush(self):
        if not self.closed and self.tell() > self.room:
            raise OSError(28, "No space left on device")


def test_the_black_box_keeps_the_last_in_order(batches, make_record):
    @given(batches, st.integers(0, 70))
    def check(batches, before):
        recorder = Recorder()
        data = make_record() * before
        for batch in [data, *batches] if data else batches:
            recorder.add(memoryview(batch))
        data += b"".join(batches)
        assert recorder.last() == data[-BLACK_BOX * SIZE :]
        assert recorder.tally.total == len(data) // SIZE

    check()


@pytest.mark.parametrize("sizes", [[200], [1] * 130, [63, 1], [64, 1], [1, 64], [65], [3, 61, 1, 200, 2]])
def test_the_black_box_is_full_whatever_the_batches(make_record, sizes):
    recorder = Recorder()
    count = 0
    for size in sizes:
        recorder.add(memoryview(numbered(make_record, size, count)))
        count += size
    first = max(count - BLACK_BOX, 0)
    assert view(recorder.last())["rip"].tolist() == list(range(first, count))


@pytest.mark.parametrize("sizes", [[200], [1] * 200, [150, 1, 1, 48]])
def test_the_exceptions_that_are_kept_know_their_numbers(make_record, sizes):
    recorder = Recorder(keep=100)
    count = 0
    for size in sizes:
        recorder.add(memoryview(numbered(make_record, size, count)))
        count += size
    exceptions = recorder.exceptions()
    assert recorder.dropped == 100
    assert [(record.seq, record.rip) for record in exceptions] == [(place, place) for place in range(100, 200)]
    recorder.add(memoryview(numbered(make_record, 1, count)))
    assert len(exceptions) == 100
    assert recorder.exceptions()[-1].seq == 200


def test_a_batch_is_copied(make_record):
    recorder = Recorder()
    memory = bytearray(numbered(make_record, 3))
    recorder.add(memoryview(memory))
    recorder.add(memoryview(memory)[:SIZE])
    memory[:] = bytes(len(memory))
    assert view(recorder.last())["rip"].tolist() == [0, 1, 2, 0]


def test_lines_are_numbered_over_all_batches(batches):
    @given(batches)
    def check(batches):
        file = io.StringIO()
        recorder = Recorder(output=LineOutput(file))
        for batch in batches:
            recorder.add(memoryview(batch))
        found = [json.loads(line) for line in file.getvalue().splitlines()]
        assert [line["seq"] for line in found] == list(range(recorder.tally.total))
        assert [line["vector"] for line in found] == view(b"".join(batches))["vector"].tolist()

    check()


def test_each_batch_is_flushed(make_record, tmp_path):
    path = tmp_path / "records.jsonl"
    with path.open("w") as file:
        recorder = Recorder(output=LineOutput(file))
        for count in (1, 3):
            recorder.add(memoryview(numbered(make_record, count)))
            assert len(path.read_text().splitlines()) == recorder.tally.total


def test_a_note_comes_after_the_records_so_far(make_record):
    lines = io.StringIO()
    recorder = Recorder(output=LineOutput(lines))
    recorder.add(memoryview(make_record(vector=6)))
    recorder.note('{"type":"note"}\n')
    recorder.add(memoryview(make_record(vector=13)))
    read = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [fields.get("seq", fields.get("type")) for fields in read] == [0, "note", 1]
    Recorder().note("without a file it goes nowhere")


def test_records_wait_for_the_names_of_their_addresses(make_record):
    known, waiting, live = {}, [True], []
    recorder = Recorder(live=live.append, lookup=known.get, wait=lambda: waiting[0])
    recorder.add(memoryview(make_record(rip=0x1000)))
    recorder.add(memoryview(make_record(rip=0x2000)))
    assert (recorder.tally.total, live) == (0, [])
    known |= {0x1000: Symbol("one", 0), 0x2000: Symbol("two", 4)}
    recorder.release()
    recorder.release()
    assert [str(each.symbol) for each in recorder.exceptions()] == ["one+0x0", "two+0x4"]
    assert len(live) == recorder.tally.total == 2
    assert "one" in live[0]
    assert "two" in live[1]


@pytest.mark.parametrize("how", ["a batch", "one record", "a note"])
def test_records_that_wait_come_before_later_ones(make_record, how):
    lines, waiting = io.StringIO(), [True]
    recorder = Recorder(output=LineOutput(lines), wait=lambda: waiting[0])
    recorder.add(memoryview(make_record(vector=6)))
    waiting[0] = False
    match how:
        case "a batch":
            recorder.add(memoryview(make_record(vector=13)))
        case "one record":
            assert recorder.add_one(memoryview(make_record(vector=13))) == 1
        case "a note":
            recorder.note('{"vector":13}\n')
    assert [json.loads(line)["vector"] for line in lines.getvalue().splitlines()] == [6, 13]


def test_not_all_memory_is_for_records_that_wait(make_record):
    recorder = Recorder(wait=lambda: True)
    batch = memoryview(numbered(make_record, 1 << 14))
    for _ in range(40):
        recorder.add(batch)
    assert recorder.tally.total > 0
    recorder.release()
    assert recorder.tally.total == 40 << 14


def test_live_lines(make_record):
    said = []
    recorder = Recorder(live=said.append)
    data = numbered(make_record, 3)
    recorder.add(memoryview(data))
    recorder.add(memoryview(data)[:SIZE])
    records = Exceptions(data)
    assert said == [str(records[place]) for place in (0, 1, 2, 0)]
    assert recorder.tally.total == 4


def test_a_full_disk_ends_the_lines(make_record):
    file = FullDisk(room=1500)
    recorder = Recorder(output=LineOutput(file))
    recorder.add(memoryview(numbered(make_record, 2)))
    with pytest.raises(RecordingError, match=r"records\.jsonl: No space left on device; what was .* kept"):
        recorder.add(memoryview(numbered(make_record, 20)))
    recorder.add(memoryview(numbered(make_record, 2)))
    assert issubclass(RecordingError, TraplineError)


@pytest.fixture
def interruptible():
    """Let Ctrl-C be a KeyboardInterrupt, even in a job in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_waits_for_the_end_of_a_batch(make_record):
    def interrupt(line):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    file = io.StringIO()
    recorder = Recorder(output=LineOutput(file), live=interrupt)
    idle = threading.Event()
    other = threading.Thread(target=idle.wait)  # it may take the signal as well
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            recorder.add(memoryview(numbered(make_record, 3)))
    finally:
        idle.set()
        other.join()
    assert recorder.tally.total == len(file.getvalue().splitlines()) == len(recorder.last()) // SIZE == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_records_may_come_in_another_thread(make_record):
    recorder = Recorder(live=lambda line: None)
    thread = threading.Thread(target=recorder.add, args=(memoryview(numbered(make_record, 3)),))
    thread.start()
    thread.join()
    assert recorder.tally.total == 3
