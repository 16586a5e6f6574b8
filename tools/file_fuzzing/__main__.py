"""Read damaged files of each kind.

    python -m tools.file_fuzzing --files 10000 --kinds images,symbols --seed S

A file is named by its kind, the seed and a number; `--only N --keep FILE` writes it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .originals import KINDS
from .worker import content_of, read_files


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.file_fuzzing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--only", type=int)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--show", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    """Read the files and report."""
    options = arguments()
    print("seed", options.seed, flush=True)
    numbers = range(options.files) if options.only is None else [options.only]
    failed = 0
    for kind in options.kinds.split(","):
        names = [f"{kind} {options.seed} {number}" for number in numbers]
        if options.keep is not None:
            options.keep.write_bytes(content_of(kind, names[0]))
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            figures = read_files(kind, names, Path(folder))
        for failure in figures.failures[: options.show]:
            print(f"{failure.name}: {failure.what}", flush=True)
        failed += len(figures.failures)
        print(
            f"{kind}: {figures.files:,} files, {figures.accepted:,} accepted, {len(figures.failures)} failures; "
            f"slowest {figures.slowest:.2f} s, at most {figures.memory >> 20} MiB; {time.monotonic() - started:.0f} s",
            flush=True,
        )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
