"""Recording to files: the time, memory and bytes of each format, written and read."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from trapline.machine.record import RECORD_SIZE
from trapline.trace.files import open_trace
from trapline.trace.files.output import BatchOutput, LineOutput
from trapline.trace.files.writer import FORMATS, LINES, Format
from trapline.trace.recorder import Recorder
from trapline.trace.stored import Metadata

from .figures import Table
from .measure import Cost, apart, in_turn, used
from .traces import made_records

RECORDS: Final = 10_000_000
_LINES: Final = 1_000_000
"""Records of lines: their time is each one's."""
_MADE: Final = 1 << 16
_DRAIN: Final = 512
"""Records that the ring gives at a time."""


def recording(rounds: int, scratch: Path, records: int = RECORDS) -> dict[str, Table]:
    """Made exceptions to each format and back."""
    return {form.suffix: _format(form, rounds, scratch, records) for form in FORMATS}


def _format(form: Format, rounds: int, scratch: Path, records: int) -> Table:
    path = scratch / f"made{form.suffix}"
    count = records if form.has_part else min(records, _LINES)
    count -= count % _DRAIN
    found = in_turn(
        {
            "written": partial(apart, _record, path, FORMATS.index(form), count),
            "three columns read": partial(apart, _read, path, ["vector", "linear_rip", "cr3"]),
            "all columns read": partial(apart, _read, path, None),
        },
        rounds,
    )
    counts = {"written": {"bytes": path.stat().st_size}}
    shares = dict.fromkeys(("written", "three columns read", "all columns read"))
    return Table(f"{count:,} records in {form.suffix}", found, (), count, shares, counts)


def _read(path: Path, columns: list[str] | None) -> Cost:
    def work() -> None:
        with open_trace(path) as trace:
            assert sum(batch.num_rows for batch in trace.batches(columns)) > 0

    return _cost(work)


def _record(path: Path, number: int, records: int) -> Cost:
    made = made_records(np.random.default_rng(1), np.arange(_MADE, dtype=np.uint64)).tobytes()
    step = _DRAIN * RECORD_SIZE
    pieces = [memoryview(made[start : start + step]) for start in range(0, len(made), step)]

    def work() -> None:
        with path.open("wb") as file, path.with_suffix(".part").open("wb") as part:
            recorder, output = _open(FORMATS[number], path, file, part)
            for drain in range(records // _DRAIN):
                recorder.add(pieces[drain % len(pieces)])
            output.close()

    return _cost(work)


def _cost(work: Callable[[], None]) -> Cost:
    """Return what a piece of work costs; its memory is what the process did not have before."""
    memory, before, start = _memory(), used(), time.perf_counter()
    work()
    return Cost(time.perf_counter() - start, used() - before, _memory() - memory)


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _open(form: Format, path: Path, file: BinaryIO, part: BinaryIO) -> tuple[Recorder, LineOutput | BatchOutput]:
    if form is LINES:
        output: LineOutput | BatchOutput = LineOutput(path.open("w", encoding="ascii"))
    else:
        output = BatchOutput(str(path), partial(form.make, file, part if form.has_part else None))
    output.begin(Metadata())
    return Recorder(output=output), output
