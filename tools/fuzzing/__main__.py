"""Run random programs: with no exception forced and with all, on Unicorn, and on QEMU.

    python -m tools.fuzzing --programs 100000 --seed S --modes real,long --qemu

A program is named by its mode, the seed and a number, and `--only N` runs one again and shows what it did.
"""

import argparse
import contextlib
import sys
import time
from collections import Counter

from trapline.processors.qemu.launch import facts_of
from trapline.processors.qemu.programs import find_qemu

from .campaign import try_program
from .machines import open_tcg, open_unicorn
from .program import MODES, generate
from .runner import End, Runner


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzzing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    ends: Counter[str] = Counter()
    vectors: Counter[int] = Counter()
    known: Counter[str] = Counter()
    wrong = 0
    started = time.monotonic()
    sets_rf = not options.qemu or facts_of(find_qemu()).faults_set_rf
    with contextlib.ExitStack() as stack:
        unicorn = stack.enter_context(Runner(lambda: open_unicorn(sets_rf=sets_rf), seconds=0.5))
        qemu = stack.enter_context(Runner(open_tcg, rewrite=True, seconds=2.0)) if options.qemu else None
        for number in numbers:
            program = generate(modes[number % len(modes)], f"{options.seed} {number}")
            findings = try_program(program, unicorn, qemu, ask_qemu=bool(number & 1))
            forced = findings.forced
            ends[forced.end.name] += 1
            vectors.update(record.vector for record in forced.records)
            if findings.known is not None:
                known[findings.known] += 1
            texts = [str(difference) for difference in findings.wrong]
            if forced.end in (End.FAILED, End.OTHER):
                texts.append(f"{program}\n   {forced.end} {forced.detail}")
            for text in texts:
                wrong += 1
                if wrong <= options.show:
                    print(text, flush=True)
    took = time.monotonic() - started
    print(dict(ends), "different", wrong, f"{took:.1f} s, {took / len(numbers) * 1e6:.0f} us each")
    print("known departures", dict(known))
    print("exceptions", dict(sorted(vectors.items())))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
