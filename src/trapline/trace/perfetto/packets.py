"""The packets of a trace: perfetto/trace/trace_packet.proto, track_event/*.proto, and interned_data.proto."""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .protobuf import Part, joined, message, number, numbers, text

Numbers = NDArray[np.integer[Any]]


class EventType(IntEnum):
    """TrackEvent.Type."""

    SLICE_BEGIN = 1
    SLICE_END = 2
    INSTANT = 3
    COUNTER = 4


class Category(IntEnum):
    """Interned categories."""

    KERNEL = 1
    USER = 2


class Note(IntEnum):
    """Interned names of what is shown with an event."""

    RIP = 1
    ADDRESS = 2
    ERROR_CODE = 3
    RECORD = 4


class Events(NamedTuple):
    """Columns of events of a type."""

    time: Numbers
    track: Numbers
    name: Numbers
    """Interned."""
    category: Numbers
    record: Numbers
    rip: Numbers
    address: Numbers | None
    error_code: Numbers | None


_PACKET, _TIMESTAMP, _SEQUENCE, _FLAGS, _EVENT, _INTERNED, _TRACK = 1, 8, 10, 13, 11, 12, 60
_CLEARED, _NEEDED = 1, 2
"""TracePacket.SequenceFlags."""
_ID: Final = number(_SEQUENCE, 1)
_LONG, _SHORT = 10, 5
"""Bytes of integers of 64 bits, and of 32."""


def begin() -> bytes:
    """Return the first packet, which interns what does not depend on the run."""
    interned = [
        *_names(1, [(each, each.name.lower()) for each in Category]),
        *_names(3, [(each, each.name.lower().replace("_", " ")) for each in Note]),
    ]
    return _packet([_ID, number(_FLAGS, _CLEARED), number(87, 1), *message(_INTERNED, interned)])


def names(rows: Sequence[tuple[int, str]]) -> bytes:
    """Return a packet that interns names of events."""
    return _packet([_ID, number(_FLAGS, _NEEDED), *message(_INTERNED, _names(2, rows))])


def group(uuid: int, name: str) -> bytes:
    """Return the packet of a track that has others below."""
    return _track([number(1, uuid), text(2, name)])


def process(uuid: int, pid: int, name: str) -> bytes:
    """Return the packet of a process's track."""
    return _track([number(1, uuid), *message(3, [number(1, pid), text(6, name)])])


def track(uuid: int, parent: int, name: str) -> bytes:
    """Return the packet of a track of events."""
    return _track([number(1, uuid), text(2, name), number(5, parent)])


def counter(uuid: int, parent: int, name: str, unit: str) -> bytes:
    """Return the packet of a counter's track."""
    return _track([number(1, uuid), text(2, name), number(5, parent), *message(8, [text(6, unit)])])


def events(kind: EventType, rows: Events) -> bytes:
    """Return the packets of instants or of the starts of slices."""
    parts = [
        number(9, kind),
        *numbers(11, rows.track, _SHORT),
        *numbers(10, rows.name, _SHORT),
        *numbers(3, rows.category, 1),
        *_note(Note.RECORD, 3, rows.record),
        *_note(Note.RIP, 7, rows.rip),
    ]
    if rows.address is not None:
        parts += _note(Note.ADDRESS, 7, rows.address)
    if rows.error_code is not None:
        parts += _note(Note.ERROR_CODE, 3, rows.error_code)
    return _timed(rows.time, parts)


def ends(time: Numbers, track: Numbers) -> bytes:
    """Return the packets of the ends of slices."""
    return _timed(time, [number(9, EventType.SLICE_END), *numbers(11, track, _SHORT)])


def counts(time: Numbers, track: Numbers, value: Numbers) -> bytes:
    """Return the packets of values of counters."""
    parts = [number(9, EventType.COUNTER), *numbers(11, track, _SHORT), *numbers(30, value, _LONG)]
    return _timed(time, parts)


def _timed(time: Numbers, event: Iterable[Part]) -> bytes:
    if not len(time):
        return b""
    return _packet(
        [*numbers(_TIMESTAMP, time, _LONG), _ID, number(_FLAGS, _NEEDED), *message(_EVENT, event)], len(time)
    )


def _note(name: Note, field: int, values: Numbers) -> list[Part]:
    """Return a DebugAnnotation."""
    return message(4, [number(1, name), *numbers(field, values, _LONG)])


def _names(field: int, rows: Iterable[tuple[int, str]]) -> list[Part]:
    return [part for iid, name in rows for part in message(field, [number(1, iid), text(2, name)])]


def _track(parts: Iterable[Part]) -> bytes:
    return _packet([_ID, number(_FLAGS, _NEEDED), *message(_TRACK, parts)])


def _packet(parts: Iterable[Part], count: int = 1) -> bytes:
    return joined(message(_PACKET, parts), count)
