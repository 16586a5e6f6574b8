"""Time whole commands in turn, and say what the medians make of them."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """What one measurement of a candidate cost."""

    seconds: float
    """What the candidate says that it took."""
    used: float
    """Seconds of processor time, of this process and of those it waited for: on a busy machine they vary less."""


Costs = dict[str, list[Cost]]

PYTHON = "Python"
CALLS = "calls"
UNITS = (PYTHON, CALLS)
_TIMES = 1_000_000


def run(command: Sequence[str]) -> float:
    """Run a command without a console and return the seconds it took.

    Python may keep what it compiles, as it does where a package is installed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    nowhere = subprocess.DEVNULL
    start = time.perf_counter()
    subprocess.run(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment, check=False)
    return time.perf_counter() - start


def in_turn(candidates: Mapping[str, Callable[[], float]], rounds: int) -> Costs:
    """Measure every candidate once a round, so that a slow minute of the machine hits all of them.

    Each round begins with another one: what a machine does after its neighbour's run is not always the same one's luck.
    Two more candidates are there each time, so that figures of two machines can be compared: a million additions in
    Python, and a million system calls.
    """
    candidates = {**candidates, PYTHON: _additions, CALLS: _system_calls}
    costs: Costs = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        for name in names:
            print(f"\r  round {number + 1} of {rounds}: {name:<24}", end="", file=sys.stderr, flush=True)
            before = _used()
            seconds = candidates[name]()
            costs[name].append(Cost(seconds, _used() - before))
        names.append(names.pop(0))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return costs


def _additions() -> float:
    start, total = time.perf_counter(), 0
    for number in range(_TIMES):
        total += number
    return time.perf_counter() - start


def _system_calls() -> float:
    call, start = os.getppid, time.perf_counter()
    for _ in range(_TIMES):
        call()
    return time.perf_counter() - start


def _used() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def medians(costs: Costs) -> dict[str, float]:
    """Return the median of the seconds of each candidate."""
    return {name: _median(values) for name, values in costs.items() if name not in UNITS}


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.seconds for cost in costs)


def print_costs(title: str, costs: Costs, *, against: Sequence[str], notes: Mapping[str, str] | None = None) -> None:
    """Print the median of each candidate, its spread and its ratio to each of `against`; then those of processor time.

    The ratios to Python and to system calls are those of the medians of seconds.
    """
    middle = {name: _median(values) for name, values in costs.items()}
    used = {name: statistics.median(cost.used for cost in values) for name, values in costs.items()}
    heads = "".join(f"{'/ ' + name:>20}" for name in against)
    units = "".join(f"{'/ ' + unit:>10}" for unit in UNITS)
    print(f"\n{title}\n{'':<20}{'median':>10}{'from':>9}{'to':>9}{heads}{units}{'CPU':>10}{heads}")
    for name, values in costs.items():
        low, high = (choice(cost.seconds for cost in values) for choice in (min, max))
        columns = [f"{name:<20}{middle[name]:>8.2f} s{low:>9.2f}{high:>9.2f}"]
        columns += [f"{middle[name] / middle[peer]:>20.2f}" for peer in against]
        columns += [f"{middle[name] / middle[unit]:>10.1f}" for unit in UNITS]
        columns += [f"{used[name]:>8.2f} s", *(f"{used[name] / used[peer]:>20.2f}" for peer in against)]
        columns.append("  " + (notes or {}).get(name, ""))
        print("".join(columns).rstrip())
