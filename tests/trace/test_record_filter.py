"""Which records of a run are kept."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.machine.record import Record
from trapline.symbols import Symbol
from trapline.trace.condition import Condition
from trapline.trace.exceptions import Exceptions
from trapline.trace.files.output import LineOutput
from trapline.trace.record_filter import RecordFilter
from trapline.trace.recorder import Recorder

SIZE = len(bytes(Record()))
CONDITIONS = ("cpl == 0", "vector == pf and has_address", "outcome == 'forwarded' or rip & 1", "seq & 1", "seq < 3")


def named(address):
    return Symbol("even" if address % 2 == 0 else "odd", 0)


@pytest.fixture
def numbered(make_record):
    """Return a function that makes records whose RIPs count from 0."""
    return lambda count: memoryview(b"".join(make_record(vector=6, rip=number) for number in range(count)))


def rips(data):
    return [record.rip for record in Exceptions(data)]


@pytest.mark.parametrize("text", CONDITIONS)
@pytest.mark.parametrize("times", [1, 40])
def test_what_is_kept_of_a_batch_is_kept_one_by_one(batches, text, times):
    @given(batches, st.integers(0, 5))
    def check(batches, first):
        data = memoryview(b"".join(batches) * times)
        chosen = RecordFilter(Condition(text))
        expected = b""
        for place in range(0, len(data), SIZE):
            record = data[place : place + SIZE]
            if chosen.holds(record, first + len(expected) // SIZE):
                expected += record
        assert chosen.choose(data, first) == expected

    check()


@pytest.mark.parametrize("count", [5, 500])
def test_a_condition_on_names(numbered, count):
    chosen = RecordFilter(Condition("symbol == 'odd'"), named)
    assert rips(chosen.choose(numbered(count), 0)) == list(range(1, count, 2))


def test_names_are_asked_for_only_if_the_condition_needs_them(numbered):
    def refuse(address):
        raise AssertionError

    assert rips(RecordFilter(Condition("rip == 3"), refuse).choose(numbered(5), 0)) == [3]


@pytest.mark.parametrize("count", [5, 500])
def test_the_number_is_the_one_that_the_record_gets(numbered, count):
    recorder = Recorder(where=Condition("seq < 3 and rip > 1"))
    recorder.add(numbered(count))
    recorder.add(numbered(count))
    assert [(record.seq, record.rip) for record in recorder.exceptions()] == [(0, 2), (1, 3), (2, 4)]


def test_what_is_left_out_is_nowhere(numbered):
    file, said = io.StringIO(), []
    recorder = Recorder(output=LineOutput(file), live=said.append, where=Condition("rip in (1, 3)"))
    data = numbered(4)
    recorder.add(data[: 2 * SIZE])
    assert [recorder.add_one(data[place * SIZE :][:SIZE]) for place in (2, 3)] == [None, 1]
    found = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(line["seq"], line["rip"]) for line in found] == [(0, "0x1"), (1, "0x3")]
    assert len(said) == recorder.tally.total == 2
    assert [(row.count, row.first_rip, row.last_rip) for row in recorder.tally.rows()] == [(2, 1, 3)]


def test_a_batch_of_which_nothing_is_kept_writes_nothing(numbered):
    class Closed(io.StringIO):
        def flush(self):
            raise AssertionError

    recorder = Recorder(output=LineOutput(Closed()), where=Condition("rip == 9"))
    recorder.add(numbered(4))
    assert recorder.tally.total == 0
