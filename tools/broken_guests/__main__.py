"""Run kernels that are broken in one place at random, and judge what trapline tells of each.

    python -m tools.broken_guests --guests 1000 --seed S [--qemu]

Each guest has a number, and `--start N --guests 1 --show` repeats one and prints its report.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

from trapline.report.text import report

from .generate import generate
from .judge import Verdict, judge, judge_twin

_SHOWN: Final = (Verdict.WRONG, Verdict.FAILED, Verdict.NOTHING)
_PROGRESS: Final = 50


def _counts(verdicts: Counter[Verdict]) -> dict[str, int]:
    return {verdict.value: count for verdict, count in verdicts.items()}


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.broken_guests", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--guests", type=int, default=1000)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--qemu", action="store_true")
    parser.add_argument("--twins", action="store_true", help="run each guest without its fault as well")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--only", help="faults whose name has this")
    options = parser.parse_args()
    processor = "qemu" if options.qemu else "unicorn"
    print("seed", options.seed, flush=True)
    verdicts: Counter[Verdict] = Counter()
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.start, options.start + options.guests):
            guest = generate(f"{options.seed} {number}")
            if options.only and options.only not in guest.fault.name:
                continue
            judged, result = judge(guest, Path(folder), processor)
            verdicts[judged.verdict] += 1
            kinds[guest.fault.name][judged.verdict.value] += 1
            if not verdicts.total() % _PROGRESS:
                print(f"{number + 1 - options.start}:", _counts(verdicts), flush=True)
            if judged.verdict in _SHOWN or options.show:
                print(f"{judged.verdict.value} {guest} ({judged.ending}): {judged.why}\n    {judged.told}", flush=True)
            if options.show:
                print(*report(result), sep="\n")
            if options.twins:
                twin = judge_twin(guest, Path(folder), processor)
                if twin.verdict is Verdict.WRONG:
                    print(f"TWIN {guest} ({twin.ending}): {twin.told}", flush=True)
    for name, counts in sorted(kinds.items()):
        print(f"{name:50}", dict(counts))
    print(_counts(verdicts), f"{time.monotonic() - started:.1f} s")
    sys.exit(bool(verdicts[Verdict.WRONG]))


if __name__ == "__main__":
    main()
