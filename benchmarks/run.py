"""Measure what forcing exceptions costs, against plain QEMU and QEMU -d int in the same run."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from . import linux
from .decision import decision
from .figures import PATH, Measurement, Table, save
from .gdb import gdb
from .in_process import in_process
from .loops import loops
from .measure import apart, this_machine
from .recording import recording
from .ring import ring
from .text import lines
from .traces import traces


class Benchmark(NamedTuple):
    """What is measured under a name."""

    rounds: int
    """How often, where nothing else is asked for."""
    tables: Callable[[int, Path], dict[str, Table]]
    """Measures so many rounds, with files in a directory."""


BENCHMARKS: Final = {
    "boot": Benchmark(9, linux.boot),
    "smp": Benchmark(5, linux.smp),
    "black-box": Benchmark(5, linux.black_box),
    "loops": Benchmark(5, loops),
    "python": Benchmark(5, decision),
    "ring": Benchmark(5, ring),
    "in-process": Benchmark(5, in_process),
    "gdb": Benchmark(5, gdb),
    "recorded-boot": Benchmark(5, linux.recorded_boot),
    "recording": Benchmark(1, recording),
    "traces": Benchmark(1, traces),
}


def measure(name: str, rounds: int | None) -> Measurement:
    """Measure what a name stands for."""
    benchmark, machine, begin = BENCHMARKS[name], this_machine(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        tables = benchmark.tables(rounds or benchmark.rounds, Path(scratch))
    return Measurement(machine, (round(begin, 2), round(os.getloadavg()[0], 2)), tables)


def main() -> int:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--rounds", type=int, help="how often each is measured (default: boot 9, others 5 or 1)")
    parser.add_argument("--save", action="store_true", help=f"write the figures of what was measured to {PATH.name}")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    for name in options.names or BENCHMARKS:
        print(f"{name}: {BENCHMARKS[name].tables.__doc__}", file=sys.stderr)
        measurement = apart(measure, name, options.rounds)
        for table in measurement.tables.values():
            print("\n".join(lines(table)), end="\n\n", flush=True)
        if options.save:
            save({name: measurement}, PATH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
