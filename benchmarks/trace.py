"""All figures of traces in one run, on an idle machine: some ten minutes.

Recording to each format and reading it back, boots of Linux that are recorded, and questions to a trace of 10,000,000
exceptions: how long each took, its processor time and the most memory that it had.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .recording import RECORDS, recording
from .run import recorded_boots
from .traces import traces


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trace", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS, help=f"of the traces (default: {RECORDS:,})")
    parser.add_argument("--rounds", type=int, default=3, help="how often Linux boots each way (default: 3; 0: never)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        recording(Path(scratch), options.records)
        if options.rounds:
            recorded_boots(options.rounds, Path(scratch))
        traces(Path(scratch), options.records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
