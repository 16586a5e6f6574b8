"""Writes traces for Perfetto, which shows them; trapline does not read them again. Evidence is left out."""

from collections.abc import Sequence
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trapline.trace.column import Columnar
from trapline.trace.perfetto import packets
from trapline.trace.perfetto.nesting import Nesting, Settled
from trapline.trace.perfetto.tracks import Names, Tracks
from trapline.trace.schema import numbers_of
from trapline.trace.stored import Metadata

from .writer import Note, Writer

_LAST: Final = (1 << 63) - 2
"""Perfetto's times are signed."""
_NANOSECONDS: Final = 1_000_000_000
"""Of a second; Perfetto's unit of time."""


class _Rows(NamedTuple):
    """What is written of records."""

    time: NDArray[Any]
    track: NDArray[Any]
    name: NDArray[Any]
    category: NDArray[Any]
    record: NDArray[Any]
    rip: NDArray[Any]
    address: NDArray[Any]
    error_code: NDArray[Any]
    present: NDArray[Any]
    """Bit 0: there is an address; bit 1: an error code."""

    def take(self, rows: NDArray[np.int64]) -> "_Rows":
        return _Rows(*(column[rows] for column in self))


class PerfettoWriter:
    """Writes a trace of Perfetto (`writer.Writer`)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tracks, self._names, self._nesting = Tracks(), Names(), Nesting()
        self._places = np.zeros(0, np.int64)
        self._rows: _Rows | None = None
        """Those that are not written yet, with their places in the trace."""
        self._count = 0
        self._frequency = _NANOSECONDS

    def begin(self, metadata: Metadata) -> None:
        """See `writer.Writer`."""
        self._frequency = metadata.tsc_frequency or _NANOSECONDS
        self._file.write(packets.begin() + self._tracks.begin())

    def write(self, columns: Columnar, notes: Sequence[Note]) -> None:
        """See `writer.Writer`."""
        if not columns.size:
            return
        track, new_tracks = self._tracks.of(columns)
        name, new_names = self._names.of(columns)
        rows = _rows(columns, track, name, self._frequency)
        self._file.write(new_tracks + new_names + self._tracks.counts(columns, rows.time))
        cpl, rsp = (numbers_of(columns, each).values.tolist() for each in ("cpl", "rsp"))
        settled = self._nesting.add(track.tolist(), cpl, rsp)
        if self._rows is not None:
            rows = _Rows(*(np.concatenate(pair) for pair in zip(self._rows, rows, strict=True)))
        places = np.concatenate((self._places, np.arange(self._count, self._count + columns.size)))
        self._count += columns.size
        self._write(places, rows, settled)
        held = np.array(self._nesting.held(), np.int64)
        self._places, self._rows = held, rows.take(np.searchsorted(places, held))

    def flush(self) -> None:
        """See `writer.Writer`."""
        self._file.flush()

    def close(self) -> None:
        """See `writer.Writer`."""
        if self._rows is not None:
            self._write(self._places, self._rows, Settled(self._places.tolist(), []))
        self._file.flush()

    def abandon(self) -> None:
        """See `writer.Writer`."""

    def _write(self, places: NDArray[np.int64], rows: _Rows, settled: Settled) -> None:
        # Perfetto keeps the order of packets of the same time: a slice ends before the next one begins.
        if settled.slices:
            starts, ends = np.searchsorted(places, np.array(settled.slices, np.int64).T)
            self._file.write(packets.ends(np.maximum(rows.time[starts] + 1, rows.time[ends]), rows.track[starts]))
            self._events(packets.EventType.SLICE_BEGIN, rows.take(np.sort(starts)))
        at = np.searchsorted(places, np.array(sorted(settled.instants), np.int64))
        self._events(packets.EventType.INSTANT, rows.take(at))

    def _events(self, kind: packets.EventType, rows: _Rows) -> None:
        for present in range(4):
            some = rows.take(np.flatnonzero(rows.present == present))
            address = some.address if present & 1 else None
            code = some.error_code if present & 2 else None
            self._file.write(packets.events(kind, packets.Events(*some[:6], address, code)))


def perfetto_writer(file: BinaryIO, part: BinaryIO | None) -> Writer:
    """Return what writes a trace for Perfetto."""
    return PerfettoWriter(file)


def _rows(columns: Columnar, track: NDArray[Any], name: NDArray[Any], frequency: int) -> _Rows:
    seq, tsc, cpl, rip, linear, address, code = (
        numbers_of(columns, each) for each in ("seq", "tsc", "cpl", "rip", "linear_rip", "address", "error_code")
    )
    time = np.where(tsc.known(), nanoseconds(tsc.values.astype(np.uint64), frequency), seq.values)
    return _Rows(
        np.minimum(time, _LAST).astype(np.uint64),
        track,
        name,
        np.where(cpl.values == 3, packets.Category.USER, packets.Category.KERNEL).astype(np.uint8),
        seq.values,
        np.where(linear.known(), linear.values, rip.values),
        address.values,
        code.values,
        address.known() | code.known().astype(np.uint8) << 1,
    )


def nanoseconds(ticks: NDArray[np.uint64], frequency: int) -> NDArray[np.uint64]:
    """Return times in nanoseconds, rounded down; those beyond what Perfetto takes are beyond that, too."""
    if frequency == _NANOSECONDS:
        return ticks
    seconds, rest = np.divmod(ticks, np.uint64(frequency))
    most = np.uint64(_LAST // _NANOSECONDS + 1)
    return np.minimum(seconds, most) * np.uint64(_NANOSECONDS) + (
        rest.astype(np.float64) * (_NANOSECONDS / frequency)
    ).astype(np.uint64)
