"""Run random programs: with no exception forced and with all, on Unicorn, and on QEMU.

    python tools/fuzz.py --programs 100000 --seed S --modes real,long --qemu

A program is named by its mode, the seed and a number, and `--only N` runs one again and shows what it did.
"""

import argparse
import collections
import contextlib
import sys
import time

from trapline.arch.vectors import FORCEABLE
from trapline.machine.boot import Boot
from trapline.processors.qemu.launch import open_qemu
from trapline.processors.qemu.processor import QemuProcessor
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.testing.fuzz import MODES, Difference, End, Program, Run, Runner, first_difference, generate
from trapline.testing.fuzz.departures import departure
from trapline.testing.fuzz.places import RAM

CPU = "EPYC,-avx,-avx2,-f16c,-fma"
"""What Unicorn 2.1.4 has of its EPYC."""


def open_unicorn(*, sets_rf: bool) -> UnicornProcessor:
    """Return a machine in this process; `sets_rf`: as the manual has it, not QEMU 7.2."""
    return UnicornProcessor(
        Boot("fuzz", "", (), lambda save, gprs: None), RAM, output=lambda data: None, sets_rf=sets_rf
    )


def open_tcg() -> QemuProcessor:
    """Return a machine of QEMU with the same CPU."""
    return open_qemu(guest=["-nodefaults"], options=["-cpu", CPU], memory=RAM)


def patient(runner: Runner, program: Program, mask: int, *, ask: bool = False) -> Run:
    """Run a program; one that takes too long, on a host with much else to do, is repeated."""
    run = runner.run(program, mask, ask=ask)
    return runner.run(program, mask, ask=ask) if run.end is End.TIME else run


def against(qemu: Runner, program: Program, forced: Run, *, ask: bool) -> Difference | None:
    """Compare a run with QEMU's."""
    return first_difference(program, forced, patient(qemu, program, FORCEABLE, ask=ask))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--qemu", action="store_true")
    parser.add_argument("--only", type=int)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--show", type=int, default=10)
    return parser.parse_args()


def main() -> None:
    """Run and report."""
    options = arguments()
    modes = options.modes.split(",")
    print("seed", options.seed, flush=True)
    numbers = [options.only] if options.only is not None else range(options.start, options.start + options.programs)
    counts = collections.Counter()
    vectors = collections.Counter()
    known = collections.Counter()
    with contextlib.ExitStack() as stack:
        unicorn = stack.enter_context(Runner(lambda: open_unicorn(sets_rf=not options.qemu), seconds=0.5))
        qemu = stack.enter_context(Runner(open_tcg, rewrite=True, seconds=2.0)) if options.qemu else None
        started = time.monotonic()
        for number in numbers:
            program = generate(modes[number % len(modes)], f"{options.seed} {number}")
            forced = unicorn.run(program, FORCEABLE, ask=True)
            counts[forced.end.name] += 1
            vectors.update(record.vector for record in forced.records)
            found = []
            if forced.end in (End.FAILED, End.OTHER):
                found.append(f"{program}\n   {forced.end} {forced.detail}")
            elif forced.end in (End.HALT, End.SHUTDOWN):
                plain, passed = patient(unicorn, program, 0), patient(unicorn, program, FORCEABLE)
                found.append(first_difference(program, forced, plain, records=False))
                found.append(first_difference(program, forced, passed))
                if qemu is not None:
                    difference = against(qemu, program, forced, ask=bool(number & 1))
                    name = difference and departure(difference)
                    if name:
                        known[name] += 1
                    else:
                        found.append(difference)
            for difference in filter(None, found):
                counts["DIFFERENT"] += 1
                if counts["DIFFERENT"] <= options.show:
                    print(difference, flush=True)
        took = time.monotonic() - started
    print(dict(counts), f"{took:.1f} s, {took / len(numbers) * 1e6:.0f} us each")
    print("known departures", dict(known))
    print("exceptions", dict(sorted(vectors.items())))
    sys.exit(bool(counts["DIFFERENT"]))


if __name__ == "__main__":
    main()
