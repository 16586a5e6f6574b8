"""Tracks and names of a trace as they appear in it."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trapline.arch.vectors import mnemonic
from trapline.trace.column import Columnar, Texts
from trapline.trace.schema import COLUMNS, numbers_of
from trapline.trace.selection import process_of

from . import packets

_COUNTERS: Final = 1
"""The track above all counters."""
_COUNTER: Final = 0x100
"""The track of the first vector's counter."""
_FIRST: Final = 0x1000
"""The first track of a process."""
_BETWEEN: Final = 256
"""Records, of which the last of each vector gets a value of its counter."""
Rows = NDArray[np.integer[Any]]


class Tracks:
    """A track for each process, with one below it for each CPU, and a counter for each vector."""

    def __init__(self) -> None:
        self._next = _FIRST
        self._tracks: dict[tuple[int, int], int] = {}
        self._processes: dict[int, int] = {}
        self._times = np.zeros(256, np.int64)

    def begin(self) -> bytes:
        """Return the packet of the track above all counters."""
        return packets.group(_COUNTERS, "exceptions")

    def of(self, columns: Columnar) -> tuple[Rows, bytes]:
        """Return the track of each record, and the packets of those that are new."""
        process, vcpu = process_of(columns), numbers_of(columns, "vcpu")
        pairs = np.stack((process.values.astype(np.uint64), vcpu.values.astype(np.uint64)), axis=1)
        found, places = np.unique(pairs, axis=0, return_inverse=True)
        new: list[bytes] = []
        tracks = [self._track(table, cpu, new) for table, cpu in found.tolist()]
        return np.array(tracks, np.uint64)[places.ravel()], b"".join(new)

    def counts(self, columns: Columnar, time: Rows) -> bytes:
        """Return the packets of the counters' values."""
        vectors = numbers_of(columns, "vector").values.astype(np.int64)
        order = np.argsort(vectors, kind="stable")
        ordered = vectors[order]
        values = np.empty(vectors.size, np.int64)
        values[order] = np.arange(vectors.size) - np.searchsorted(ordered, ordered) + 1 + self._times[ordered]
        kinds = np.arange(vectors.size) // _BETWEEN << 8 | vectors
        last = vectors.size - 1 - np.unique(kinds[::-1], return_index=True)[1]
        new = b"".join(
            packets.counter(vector + _COUNTER, _COUNTERS, mnemonic(vector), "exceptions")
            for vector in np.unique(vectors).tolist()
            if not self._times[vector]
        )
        self._times += np.bincount(vectors, minlength=256)
        return new + packets.counts(time[last], vectors[last] + _COUNTER, values[last])

    def _track(self, table: int, cpu: int, new: list[bytes]) -> int:
        if table not in self._processes:
            self._processes[table] = self._free()
            new.append(packets.process(self._processes[table], len(self._processes), f"CR3 {table:#x}"))
        if (table, cpu) not in self._tracks:
            self._tracks[table, cpu] = self._free()
            new.append(packets.track(self._tracks[table, cpu], self._processes[table], f"CPU {cpu}"))
        return self._tracks[table, cpu]

    def _free(self) -> int:
        self._next += 1
        return self._next - 1


class Names:
    """Interns the names of events: `#PF memset`."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str | None], int] = {}

    def of(self, columns: Columnar) -> tuple[Rows, bytes]:
        """Return the number of each record's name, and the packet of those that are new."""
        symbols: Texts = columns.over(COLUMNS["symbol"])
        vectors = numbers_of(columns, "vector").values
        found, places = np.unique(symbols.codes.astype(np.int64) << 8 | vectors, return_inverse=True)
        new: list[tuple[int, str]] = []
        numbers = [self._number(code & 0xFF, symbols.table[code >> 8], new) for code in found.tolist()]
        return np.array(numbers, np.uint64)[places], packets.names(new) if new else b""

    def _number(self, vector: int, symbol: str | None, new: list[tuple[int, str]]) -> int:
        key = vector, symbol
        if key not in self._known:
            self._known[key] = len(self._known) + 1
            new.append((self._known[key], mnemonic(vector) if symbol is None else f"{mnemonic(vector)} {symbol}"))
        return self._known[key]
