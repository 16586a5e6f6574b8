"""Perfetto's own schema finds in a written trace what was recorded."""

import io
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from trapline.symbols import Symbol
from trapline.trace.columns import dtype
from trapline.trace.exceptions import Exceptions
from trapline.trace.files.writer import format_of
from trapline.trace.perfetto.nesting import STACK, Nesting, Slice
from trapline.trace.stored import Metadata

schema = pytest.importorskip("perfetto.protos.perfetto.trace.perfetto_trace_pb2")
Type = schema.TrackEvent.Type


def written(*batches, frequency=None):
    """Return what Perfetto's schema reads of a trace."""
    file = io.BytesIO()
    writer = format_of("run.pftrace").make(file)
    writer.begin(Metadata(tsc_frequency=frequency))
    count = 0
    for records, lookup in batches:
        writer.write(Exceptions(records.tobytes(), first=count, lookup=lookup).batch(), [])
        count += len(records)
    writer.close()
    return schema.Trace.FromString(file.getvalue()).packet


def records(count, **fields):
    found = np.zeros(count, dtype())
    for name, value in {"vector": 14, "flags": 3, "tsc": 1000 + np.arange(count), **fields}.items():
        found[name] = value
    return found


class Read:
    """A trace with its names resolved."""

    def __init__(self, packets):
        self.tracks, self.names, self.notes, self.events = {}, {}, {}, []
        for packet in packets:
            assert packet.trusted_packet_sequence_id == 1
            if packet.HasField("track_descriptor"):
                assert packet.track_descriptor.uuid not in self.tracks
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            for each in packet.interned_data.event_names:
                self.names[each.iid] = each.name
            for each in packet.interned_data.debug_annotation_names:
                self.notes[each.iid] = each.name
            if packet.HasField("track_event"):
                assert packet.track_event.track_uuid in self.tracks
                self.events.append((packet.timestamp, packet.track_event))
        self.events.sort(key=lambda event: event[0])

    def of(self, kind):
        return [(time, event) for time, event in self.events if event.type == kind]


def test_an_instant_has_what_the_record_has():
    row = records(1, tsc=1 << 62, rip=0xFFFF_FFFF_8100_0010, address=1 << 47, error_code=6, cr3=0x5000, vcpu=2, cpl=3)
    read = Read(written((row, lambda _: Symbol("memset", 16))))
    ((time, event),) = read.of(Type.TYPE_INSTANT)
    assert (time, read.names[event.name_iid]) == (1 << 62, "#PF memset")
    shown = {read.notes[each.name_iid]: each for each in event.debug_annotations}
    assert set(shown) == {"record", "rip", "address", "error code"}
    assert (shown["rip"].pointer_value, shown["address"].pointer_value) == (0xFFFF_FFFF_8100_0010, 1 << 47)
    assert (shown["error code"].uint_value, shown["record"].uint_value) == (6, 0)
    track = read.tracks[event.track_uuid]
    above = read.tracks[track.parent_uuid]
    assert (track.name, above.process.process_name) == ("CPU 2", "CR3 0x5000")


def test_times_are_nanoseconds():
    ticks = np.array([0, 1, 2_445_000_000 * 5 + 2_445_000, (1 << 64) - 1], np.uint64)
    read = Read(written((records(4, tsc=ticks), None), frequency=2_445_000_000))
    last = ((1 << 64) - 1) * 1_000_000_000 // 2_445_000_000
    assert [time for time, _ in read.of(Type.TYPE_INSTANT)] == [0, 0, 5_001_000_000, pytest.approx(last, abs=1)]


@pytest.mark.parametrize("sizes", [(10_000,), (1, 4999, 5000)])
def test_every_record_is_there_once_and_counters_end_at_their_totals(sizes):
    generator = np.random.default_rng(4)
    rows = records(
        10_000,
        vector=generator.choice([6, 13, 14], 10_000),
        flags=generator.integers(0, 4, 10_000),
        cpl=generator.choice([0, 3], 10_000),
        cr3=generator.choice([0x1000, 0x2000], 10_000),
        rsp=generator.integers(0, STACK * 2, 10_000),
    )
    bounds = np.cumsum((0, *sizes))
    read = Read(written(*((rows[start:end], None) for start, end in pairwise(bounds))))
    starts = read.of(Type.TYPE_INSTANT) + read.of(Type.TYPE_SLICE_BEGIN)
    assert sorted(time for time, _ in starts) == rows["tsc"].tolist()
    named = {6: "#UD", 13: "#GP", 14: "#PF"}
    for time, event in starts[::16]:
        row = rows[time - 1000]
        assert read.names[event.name_iid] == named[row["vector"]]
        assert [read.notes[each.name_iid] for each in event.debug_annotations][2:] == [
            name for bit, name in ((2, "address"), (1, "error code")) if row["flags"] & bit
        ]
    opened, slices = defaultdict(list), set()
    for time, event in read.events:
        if event.type == Type.TYPE_SLICE_BEGIN:
            opened[event.track_uuid].append(time)
        elif event.type == Type.TYPE_SLICE_END:
            slices.add(Slice(opened[event.track_uuid].pop() - 1000, time - 1000))
    assert not any(opened.values())
    expected = Nesting().add(*(rows[name].tolist() for name in ("cr3", "cpl", "rsp"))).slices
    assert slices == set(expected)
    assert len(expected) > 100
    last = {read.tracks[event.track_uuid].name: event.counter_value for _, event in read.of(Type.TYPE_COUNTER)}
    assert last == {name: np.count_nonzero(rows["vector"] == vector) for vector, name in named.items()}


@pytest.mark.parametrize(
    ("cpls", "stacks", "slices", "left"),
    [
        ([3, 0, 3], [0, 900, 0], [Slice(0, 2)], [2]),
        ([0, 0, 0, 0], [900, 800, 800, 900], [Slice(0, 3)], [3]),
        ([0, 0, 0, 0, 0], [900, 800, 700, 850, 900], [Slice(1, 3), Slice(0, 4)], [4]),
        ([3, 3, 0, 0], [0, 0, 900, 900], [], [1, 3]),
        ([0, 0, 0], [900, 800, 900 + STACK], [], [0, 1, 2]),
    ],
)
def test_a_return_is_proved(cpls, stacks, slices, left):
    nesting = Nesting()
    found = nesting.add([1] * len(cpls), cpls, stacks)
    assert (found.slices, nesting.held()) == (slices, left)
    assert sorted([*found.instants, *(each.start for each in slices), *left]) == list(range(len(cpls)))
    assert nesting.add([2], [3], [0]) == ([], [])
