"""Recording to files: records a second, memory and bytes of each format, also read; what it adds to a boot of Linux."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from trapline.machine.record import RECORD_SIZE
from trapline.trace.files import open_trace
from trapline.trace.files.output import BatchOutput, LineOutput
from trapline.trace.files.writer import FORMATS, LINES, Format
from trapline.trace.recorder import Recorder
from trapline.trace.stored import Metadata

from .measure import in_turn, print_costs, run
from .traces import made_records

RECORDS: Final = 10_000_000
_LINES: Final = 1_000_000
"""Records of lines: their time is each one's."""
_MADE: Final = 1 << 16
_DRAIN: Final = 512
"""Records that the ring gives at a time."""


def recording(scratch: Path, records: int = RECORDS) -> None:
    """Record made exceptions to each format."""
    for form in FORMATS:
        # In a process of its own: Linux counts what this one uses among the memory of what it starts.
        count = records if form.has_part else min(records, _LINES)
        arguments = scratch / f"made{form.suffix}", FORMATS.index(form), count
        for work in (_record, _read):
            child = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
            child.start()
            child.join()


def _read(path: Path, number: int, records: int) -> None:
    for what, columns in (("three columns", ["vector", "linear_rip", "cr3"]), ("all columns", None)):
        start = time.perf_counter(), time.process_time()
        with open_trace(path) as trace:
            count = sum(batch.num_rows for batch in trace.batches(columns))
        wall, used = time.perf_counter() - start[0], time.process_time() - start[1]
        print(
            f"    {what + ' read:':<20}{count / wall:>10,.0f} records a second, {used / count * 1e6:4.1f} us of "
            "processor time each",
            flush=True,
        )


def _record(path: Path, number: int, records: int) -> None:
    form = FORMATS[number]
    made = made_records(np.random.default_rng(1), np.arange(_MADE, dtype=np.uint64)).tobytes()
    step = _DRAIN * RECORD_SIZE
    pieces = [memoryview(made[start : start + step]) for start in range(0, len(made), step)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter(), time.process_time()
    with path.open("wb") as file, path.with_suffix(".part").open("wb") as part:
        recorder, output = _open(form, path, file, part)
        for drain in range(records // _DRAIN):
            recorder.add(pieces[drain % len(pieces)])
        output.close()
    wall, used = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"  {form.suffix:<12}{records / wall:>10,.0f} records a second, {used / records * 1e6:4.1f} us of processor "
        f"time each, {path.stat().st_size / records:6.1f} bytes each; {memory >> 10} MiB, {before >> 10} before",
        flush=True,
    )


def _open(form: Format, path: Path, file: object, part: object) -> tuple[Recorder, LineOutput | BatchOutput]:
    if form is LINES:
        output: LineOutput | BatchOutput = LineOutput(path.open("w", encoding="ascii"))
    else:
        output = BatchOutput(str(path), partial(form.make, file, part if form.has_part else None))
    output.begin(Metadata())
    return Recorder(output=output), output


def boots(ours: Sequence[str], plain: Sequence[str], scratch: Path, rounds: int) -> None:
    """Boot Linux and record to nowhere, to files, and with `-d int` and a script that reads its log."""
    files = {
        "Parquet": ["-o", str(scratch / "boot.parquet")],
        "without registers": ["-o", str(scratch / "small.parquet"), "--no-registers"],
        "JSON lines": ["-o", str(scratch / "boot.jsonl")],
    }
    log = scratch / "int.log"
    script = [
        sys.executable,
        "-m",
        "trapline",
        "import",
        "qemu-int",
        str(log),
        "-f",
        "-o",
        str(scratch / "log.parquet"),
    ]
    costs = in_turn(
        {
            "nowhere": lambda: run(ours),
            **{name: lambda more=more: run([*ours, "-f", *more]) for name, more in files.items()},
            "-d int, imported": lambda: run([*plain, "-d", "int", "-D", str(log)]) + run(script),
        },
        rounds,
    )
    print_costs("A boot of Linux, recorded", costs, against=("nowhere", "-d int, imported"), notes=_sizes(files))


def _sizes(files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found = {}
    for name, (_, path, *_) in files.items():
        with open_trace(path) as trace:
            records = sum(batch.num_rows for batch in trace.batches(["seq"]))
        found[name] = f"{Path(path).stat().st_size / records:.1f} bytes each of {records:,}"
    return found
