"""Time whole commands in turn, and say what the medians make of them."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

Seconds = dict[str, list[float]]


def run(command: Sequence[str]) -> float:
    """Run a command without a console and return the seconds it took.

    Python may keep what it compiles, as it does where a package is installed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    nowhere = subprocess.DEVNULL
    start = time.perf_counter()
    subprocess.run(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment, check=False)
    return time.perf_counter() - start


def in_turn(candidates: Mapping[str, Callable[[], float]], rounds: int) -> Seconds:
    """Measure every candidate once a round, so that a slow minute of the machine hits all of them.

    Each round begins with another one: what a machine does after its neighbour's run is not always the same one's luck.
    """
    seconds: Seconds = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        for name in names:
            print(f"\r  round {number + 1} of {rounds}: {name:<24}", end="", file=sys.stderr, flush=True)
            seconds[name].append(candidates[name]())
        names.append(names.pop(0))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return seconds


def medians(seconds: Seconds) -> dict[str, float]:
    """Return the median of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_seconds(
    title: str, seconds: Seconds, *, against: Sequence[str], notes: Mapping[str, str] | None = None
) -> None:
    """Print the median of each candidate, its spread, and its ratio to each of `against`."""
    middle = medians(seconds)
    heads = "".join(f"{'/ ' + name:>14}" for name in against)
    print(f"\n{title}\n{'':<20}{'median':>10}{'from':>9}{'to':>9}{heads}")
    for name, values in seconds.items():
        ratios = "".join(f"{middle[name] / middle[peer]:>14.2f}" for peer in against)
        note = (notes or {}).get(name, "")
        print(f"{name:<20}{middle[name]:>8.2f} s{min(values):>9.2f}{max(values):>9.2f}{ratios}  {note}".rstrip())
