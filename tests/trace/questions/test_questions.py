"""The answers agree with what is counted record by record."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trapline.arch.registers import EFER
from trapline.errors import UsageError
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions
from trapline.trace.jsonl import json_lines
from trapline.trace.reading import Reading
from trapline.trace.schema import mode_of
from trapline.trace.stored import Metadata

pytest.importorskip("pyarrow")
from trapline.trace.questions import groups as grouping
from trapline.trace.questions.groups import groups, read_keys
from trapline.trace.questions.over_time import over_time
from trapline.trace.questions.totals import rate_of, totals


def lookup(address):
    return Symbol(f"f{address & 2}", address & 0xFF, "file.c", 7) if address & 1 else None


def process(record):
    return record.cr3 & (~0xFFF if record.efer & EFER.LMA else ~0x1F)


OF = {
    "vector": lambda record: (record.vector,),
    "symbol": lambda record: (record.symbol.name, None) if record.symbol else (None, record.linear_rip),
    "rip": lambda record: (
        record.linear_rip,
        *((record.symbol.name, record.symbol.offset, record.symbol.source) if record.symbol else (None, None, None)),
    ),
    "process": lambda record: (process(record),),
    "mode": lambda record: (mode_of(record.cr0, record.efer, record.rflags),),
    "has_address": lambda record: (record.address is not None,),
    "vectoring": lambda record: (record.vectoring and record.vectoring.vector,),
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return a function that stores records and returns them, and the path of their trace."""
    path = tmp_path_factory.mktemp("stored") / "run.jsonl"

    def stored(parts):
        records = Exceptions(b"".join(parts), lookup=lookup)
        path.write_text('{"type":"run"}\n' + "".join(json_lines(records.data, 0, lookup)))
        return records, str(path)

    return stored


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_groups(batches, stored, data):
    records, path = stored(data.draw(batches))
    keys = data.draw(st.lists(st.sampled_from(sorted({*OF} - {"rip"})), min_size=1, max_size=3, unique=True))
    with Reading([path]) as reading:
        for by in (keys, ["rip"]):
            answer = groups(reading, by)
            of = [sum((OF[key](record) for key in by), ()) for record in records]
            assert {group.values: group.times for group in answer.groups} == Counter(of)
            assert (answer.total, answer.distinct, answer.complete) == (len(records), len(answer.groups), True)
            for group in answer.groups:
                assert group.first == of.index(group.values)
                assert group.last == len(of) - 1 - of[::-1].index(group.values)
            times = [group.times for group in answer.groups]
            assert times == sorted(times, reverse=True)
            assert groups(reading, by, limit=2).groups == answer.groups[:2]
        assert groups(reading, ["seq"]).distinct == len(records)


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_totals_and_time(batches, stored, data):
    records, path = stored(data.draw(batches))
    with Reading([path]) as reading:
        answer, time = totals(reading), over_time(reading, 4)
    assert {row.vector: (row.kernel, row.user) for row in answer.vectors} == {
        vector: (sum(cpl < 3 for cpl in cpls), cpls.count(3))
        for vector in {record.vector for record in records}
        for cpls in [[record.cpl for record in records if record.vector == vector]]
    }
    stamps = [record.tsc for record in records]
    assert answer.total == time.total == sum(row.times for row in answer.vectors) == len(records)
    assert answer.ticks == (max(stamps) - min(stamps) if stamps else 0)
    assert len(time.intervals) <= 4
    for interval in time.intervals:
        inside = [record.vector for record in records if 0 <= record.tsc - interval.first < time.width]
        assert (interval.times, interval.vectors) == (len(inside), Counter(inside))


def test_sorted_otherwise(stored, make_record):
    _, path = stored([make_record(vector=vector, tsc=1) for vector in (14, 6, 14, 13, 6)])
    with Reading([path]) as reading:
        orders = {
            sort: [group.values[0] for group in groups(reading, ["vector"], sort=sort).groups]
            for sort in ("count", "key", "first", "last")
        }
    assert orders == {"count": [14, 6, 13], "key": [6, 13, 14], "first": [14, 6, 13], "last": [14, 13, 6]}


def test_too_many_groups_drop_those_with_few(stored, make_record, monkeypatch):
    monkeypatch.setattr(grouping, "MOST", 4)
    _, path = stored([make_record(vector=6, rip=rip) for rip in (*range(40, 60, 2), *([2] * 9))])
    with Reading([path]) as reading:
        answer = groups(reading, ["linear_rip"])
    assert not answer.complete
    assert (answer.total, answer.groups[0].values, answer.groups[0].times) == (19, (2,), 9)


@pytest.mark.parametrize("text", ["colour", "", "vector,", "vector,colour"])
def test_what_is_not_a_key(text):
    with pytest.raises(UsageError, match=r"there is no such key\. Keys: time, symbol, rip, process, run, seq"):
        read_keys(text)


def test_rates_are_of_seconds_where_the_tick_is_known():
    assert rate_of(Metadata(tsc_frequency=1_000_000_000)).of(6, 2_000_000_000) == 3
    assert rate_of(Metadata(processor="qemu")).of(6, 2_000_000) == 3
    assert rate_of(Metadata()).of(6, 0) is None
