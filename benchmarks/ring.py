"""Records a second from the ring of shared memory to counts."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Final

from trapline.machine.record import RECORD_SIZE
from trapline.processors.qemu.damage import Damage
from trapline.processors.qemu.layout import RING_RECORDS, SIZE, SharedMemory
from trapline.processors.qemu.ring import Ring
from trapline.trace.recorder import Recorder

from .figures import Table
from .measure import in_turn, timed

_TURNS: Final = 200
_BATCHES: Final = 64
_VECTORS: Final = (14, 14, 14, 13, 6, 0)


def ring(rounds: int, scratch: Path) -> dict[str, Table]:
    """Records from the ring to counts."""
    shared = SharedMemory(memoryview(bytearray(SIZE)))
    for number in range(RING_RECORDS):
        shared.ring[number * RECORD_SIZE + 8] = _VECTORS[number % len(_VECTORS)]
    found = in_turn({"counted": partial(timed, lambda: _drain(shared))}, rounds)
    times, batch = _TURNS * RING_RECORDS, RING_RECORDS // _BATCHES
    title = f"{times:,} records from the ring to counts, {batch} at a time"
    return {"ring": Table(title, found, times=times, shares={"counted": None})}


def _drain(shared: SharedMemory) -> float:
    shared.mailbox.ring_head = shared.mailbox.ring_tail = 0
    ring, recorder = Ring(shared, Damage(shared, isolated=False, q35=False)), Recorder()
    ring.sink = recorder.add
    batch = RING_RECORDS // _BATCHES
    start = time.perf_counter()
    for _ in range(_TURNS * _BATCHES):
        shared.mailbox.ring_head += batch
        ring.drain()
    seconds = time.perf_counter() - start
    assert recorder.tally.total == _TURNS * RING_RECORDS
    return seconds
