"""Measure candidates in turn, by the clock and by the processor time that they used."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from .figures import ADDITION, SYSTEM_CALL, YARDSTICK_TIMES, Machine, Rounds

QEMU = "qemu-system-x86_64"
Given = ParamSpec("Given")
Found = TypeVar("Found")


class Cost(NamedTuple):
    """What one measurement of a candidate cost: the fields are those of `Rounds`."""

    seconds: float
    used: float
    memory: int | None = None


Candidates = Mapping[str, Callable[[], Cost]]


def timed(work: Callable[[], float]) -> Cost:
    """Return the seconds that a piece of work says that it took, and the processor time of all of it."""
    before = used()
    seconds = work()
    return Cost(seconds, used() - before)


def apart(work: Callable[Given, Found], *arguments: Given.args, **keywords: Given.kwargs) -> Found:
    """Do work in a process of its own: Linux counts what one has used among the memory of those that it starts."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **keywords).result()


def run(*commands: Sequence[str]) -> Cost:
    """Run commands without a console, one after the other.

    Python may keep what it compiles, as it does where a package is installed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    nowhere = subprocess.DEVNULL

    def work() -> float:
        start = time.perf_counter()
        for command in commands:
            subprocess.run(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment, check=False)
        return time.perf_counter() - start

    return timed(work)


def in_turn(candidates: Candidates, rounds: int) -> dict[str, Rounds]:
    """Measure every candidate once a round, so that a slow minute of the machine hits all of them.

    Each round begins with another one: what a machine does after its neighbour's run is not always the same one's luck.
    The yardsticks are there each time: a million additions in a loop of Python, and a million system calls.
    """
    candidates = {
        **candidates,
        ADDITION: partial(timed, _additions),
        SYSTEM_CALL: partial(timed, _system_calls),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds):
        for name in names:
            print(f"\r  round {number + 1} of {rounds}: {name:<24}", end="", file=sys.stderr, flush=True)
            costs[name].append(candidates[name]())
        names.append(names.pop(0))
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return {name: _rounds(found) for name, found in costs.items()}


def _rounds(costs: Sequence[Cost]) -> Rounds:
    return Rounds(
        seconds=tuple(round(cost.seconds, 5) for cost in costs),
        used=tuple(round(cost.used, 5) for cost in costs),
        memory=tuple(cost.memory for cost in costs if cost.memory is not None),
    )


def _additions() -> float:
    start, total = time.perf_counter(), 0
    for number in range(YARDSTICK_TIMES):
        total += number
    return time.perf_counter() - start


def _system_calls() -> float:
    call, start = os.getppid, time.perf_counter()
    for _ in range(YARDSTICK_TIMES):
        call()
    return time.perf_counter() - start


def used() -> float:
    """Return the seconds of processor time of this process and of those that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def this_machine() -> Machine:
    """Return what is measured here, and on what."""
    if shutil.which(QEMU) is None:
        sys.exit(f"{QEMU} is not on PATH: run make setup")
    qemu = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return Machine(
        cpu=next((line.partition(": ")[2] for line in cpus if line.startswith("model name")), platform.machine()),
        cores=len(os.sched_getaffinity(0)),
        qemu=qemu.split()[3],
        unicorn=version("unicorn"),
        python=platform.python_version(),
    )
