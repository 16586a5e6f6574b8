"""Questions to a stored trace: time and memory of each verb, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trapline.arch.vectors import Vector
from trapline.machine.record import RecordFlags
from trapline.symbols import Symbol
from trapline.trace.arrow import to_batch
from trapline.trace.column import Batch
from trapline.trace.columns import dtype
from trapline.trace.files.layout import METADATA, STORED

from .figures import Table
from .measure import Cost, in_turn

RECORDS: Final = 10_000_000
_PART: Final = 1 << 19
_KERNEL: Final = 0xFFFF_FFFF_8100_0000
_FUNCTION: Final = 0x140
_DIFFERENCE: Final = 1
"""The exit code of `diff` where there is one."""
_VERBS: Final = {
    "report": ["report"],
    "report --by symbol": ["report", "--by", "symbol"],
    "report --by vector,rip": ["report", "--by", "vector,rip"],
    "report --by time": ["report", "--by", "time"],
    "stat": ["stat"],
    "stat --where CONDITION": ["stat", "--where", "cpl == 3 and vector == pf and address & 0xfff < 0x10"],
    "show --last 10 --where CONDITION": ["show", "--last", "10", "--where", "error_code & 4"],
    "query SQL": ["query", "select symbol, count(*) n from trace group by symbol order by n desc limit 10"],
}


def traces(rounds: int, scratch: Path, records: int = RECORDS) -> dict[str, Table]:
    """Questions to a made trace."""
    path, other, unrelated = (scratch / f"{name}.parquet" for name in ("made", "other", "unrelated"))
    making = [
        # In processes of their own: Linux counts what this one uses among the memory of what it starts.
        subprocess.Popen([sys.executable, "-m", __name__, file, *map(str, (records, seed, *without))])
        for file, seed, *without in ((path, 1), (other, 1, records // 3, records - 9), (unrelated, 2))
    ]
    statuses = [process.wait() for process in making]
    assert not any(statuses)
    verbs = _VERBS | {
        "report --html": ["report", "--html", os.fspath(scratch / "made.html")],
        "diff": ["diff", os.fspath(other)],
        "diff of unrelated traces": ["diff", os.fspath(unrelated)],
    }
    found = in_turn(
        {name: partial(_ask, [verb, os.fspath(path), *more]) for name, (verb, *more) in verbs.items()}, rounds
    )
    title = f"Questions to {records:,} records of {path.stat().st_size / records:.1f} bytes each"
    return {"verbs": Table(title, found, times=records)}


def write_trace(path: Path, records: int, *, seed: int = 1, without: tuple[int, ...] = ()) -> None:
    """Write a trace like one of a Linux boot: few vectors, some thousand places, a hundred processes.

    `without`: records that are left out.
    """
    random = np.random.default_rng(seed)
    writer: pq.ParquetWriter | None = None
    for first in range(0, records, _PART):
        numbers = np.arange(first, min(first + _PART, records), dtype=np.uint64)
        kept = ~np.isin(numbers, without)
        part = to_batch(Batch(made_records(random, numbers)[kept], numbers[kept], _name), STORED)
        if writer is None:
            metadata = {METADATA: json.dumps({"guest": "made", "processor": "qemu"}).encode()}
            writer = pq.ParquetWriter(
                path, part.schema.with_metadata(metadata), compression="zstd", compression_level=1
            )
        writer.write_table(pa.Table.from_batches([part]))
    assert writer is not None
    writer.close()


def made_records(random: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """Return records like those of a Linux boot."""
    count = numbers.size
    found = np.zeros(count, dtype())
    vectors = random.choice(
        [Vector.PF, Vector.NM, Vector.GP, Vector.UD, Vector.DB], count, p=[0.9, 0.06, 0.02, 0.01, 0.01]
    )
    user = random.random(count) < 0.6
    pages = vectors == Vector.PF
    found["vector"], found["cpl"] = vectors, np.where(user, 3, 0)
    found["error_code"] = np.where(pages, np.where(user, 4, 0) | random.integers(0, 3, count), 0)
    found["address"] = np.where(pages, random.integers(0, 1 << 36, count) << 3, 0)
    has_code = pages | (vectors == Vector.GP)
    found["flags"] = RecordFlags.FORWARDED | np.where(has_code, RecordFlags.HAS_ERROR_CODE, 0)
    found["flags"] |= np.where(pages, RecordFlags.HAS_ADDRESS, 0).astype(found["flags"].dtype)
    places = (random.pareto(1.0, count) * 64).astype(np.uint64) % np.uint64(8192) * np.uint64(40)
    found["rip"] = np.where(user, np.uint64(0x40_0000) + places, np.uint64(_KERNEL) + places)
    found["rsp"] = found["rip"] + np.uint64(1 << 20)
    found["tsc"] = numbers * np.uint64(30_000) + random.integers(0, 20_000, count).astype(np.uint64)
    found["cr3"] = random.integers(0x100, 0x180, count).astype(np.uint64) << np.uint64(12)
    found["cs"], found["ss"] = np.where(user, 0x33, 0x10), np.where(user, 0x2B, 0x18)
    found["cr0"], found["cr4"], found["efer"], found["rflags"] = 0x8005_0033, 0x6F0, 0x1D01, 0x246
    found["dr6"] = 0xFFFF_0FF0
    return found


def _name(address: int) -> Symbol | None:
    if address < _KERNEL:
        return None
    number, offset = divmod(address - _KERNEL, _FUNCTION)
    return Symbol(f"function_{number}", offset, f"kernel/file_{number % 50}.c", number)


def _ask(arguments: list[str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "trapline", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, _DIFFERENCE), f"trapline {arguments[0]}: exit code {process.returncode}"
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


if __name__ == "__main__":
    write_trace(Path(sys.argv[1]), int(sys.argv[2]), seed=int(sys.argv[3]), without=tuple(map(int, sys.argv[4:])))
