"""Run random code from the command line, in process: each run must end with its summary and all its records.

    python -m tools.fuzzing.survival --programs 100000 --seed S

Many commands run in one process, which is replaced now and then: an engine that crashed keeps its memory. Each run has
a number, and `--start N --programs 1` repeats it.
"""

import argparse
import faulthandler
import gc
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trapline.cli.main import main as trapline

from .raw import generate

_CODES: Final = {"off": 0, "reset": 0, "halted": 0, "shutdown": 3, "failed": 1, "timeout": 124}
_TIMEOUT: Final = "0.1"
_LIMIT: Final = 120
"""Seconds for one run: after that its process hangs."""
_CRASHES: Final = 40
"""In one process."""
_RUNS: Final = 1000


def run(seed: str, folder: Path) -> tuple[str, str | None]:
    """Run the code of a seed in this process; return its ending, and what is wrong."""
    bits, body = generate(seed)
    image, records, console = (folder / name for name in ("code.bin", "records.jsonl", "console.txt"))
    image.write_bytes(body)
    command = ["run", str(image), "--entry-mode", str(bits), "--memory", "4M", "--timeout", _TIMEOUT, "--json"]
    command += ["-o", str(records), "--console", str(console), "--force", "--processor", "unicorn"]
    shown = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in shown]
    try:
        code = trapline(command)
    finally:
        sys.stdout, sys.stderr = shown
    said, summary = (stream.buffer.getvalue().decode() for stream in (err, out))
    try:
        document: dict[str, Any] = json.loads(summary)
        lines = [json.loads(line) for line in records.read_text().splitlines()]
    except ValueError as error:
        return "", f"{error}: {summary} {said}"
    return document["ending"], _complaint(document, [line for line in lines if "type" not in line], code, said)


def _complaint(document: dict[str, Any], records: list[dict[str, Any]], code: int, said: str) -> str | None:
    expected = _CODES.get(document["ending"])
    if document["ending"] == "debug_exit":
        expected = 4 if document["debug_exit"] >> 1 else 0
    if expected != code or "Traceback" in said:
        return f"{document['ending']} with exit code {code}: {said}"
    if "an error in trapline" in " ".join(document["findings"]):
        return f"{document['findings']}"
    if document["ending"] == "failed" and "--processor qemu" not in said:
        return f"no advice: {said}"
    if [record["seq"] for record in records] != list(range(document["recorded"])):
        return f"{len(records)} records of {document['recorded']}"
    return None


def _work(seed: str, numbers: range) -> None:
    """Run programs, and print a line of JSON for each."""
    crashes = 0
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            faulthandler.dump_traceback_later(_LIMIT, exit=True)
            ending, wrong = run(f"{seed} {number}", Path(folder))
            print(json.dumps((number, ending, wrong)), flush=True)
            gc.unfreeze()  # the command line freezes what it leaves
            crashes += ending == "failed"
            if crashes == _CRASHES:
                return


def results(seed: str, numbers: range) -> Iterator[tuple[int, str, str | None]]:
    """Run programs in other processes; yield the number of each, its ending and what is wrong."""
    at = numbers.start
    while at < numbers.stop:
        count = min(_RUNS, numbers.stop - at)
        command = [sys.executable, "-m", __spec__.name, "--worker", "--seed", seed, "--start", str(at)]
        worker = subprocess.Popen([*command, "--programs", str(count)], stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        with worker.stdout:
            for line in worker.stdout:
                number, ending, wrong = json.loads(line)
                at = number + 1
                yield number, ending, wrong
        if worker.wait():
            yield at, "", f"the process ended with status {worker.returncode}"
            at += 1


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzzing.survival", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", default=str(int(time.time())))
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    numbers = range(options.start, options.start + options.programs)
    if options.worker:
        _work(options.seed, numbers)
        return
    print("seed", options.seed, flush=True)
    endings: Counter[str] = Counter()
    wrongs = 0
    started = time.monotonic()
    for number, ending, wrong in results(options.seed, numbers):
        endings[ending] += 1
        if wrong is not None:
            wrongs += 1
            print(f"{number}: {wrong}", flush=True)
    print(dict(endings), "wrong", wrongs, f"{time.monotonic() - started:.1f} s")
    sys.exit(bool(wrongs))


if __name__ == "__main__":
    main()
