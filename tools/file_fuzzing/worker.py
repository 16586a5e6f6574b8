"""Reads many damaged files in a process with a bound of memory, and each within a bound of time."""

import gc
import os
import resource
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

from .mutations import mutate
from .originals import originals
from .readers import read

MEMORY: Final = 1 << 30
SECONDS: Final = 10
"""Of the CPU."""


_COLLECTED: Final = 100
"""Files between two garbage collections."""


class Failure(NamedTuple):
    """A file that was not read as it should be."""

    name: str
    what: str


class Figures(NamedTuple):
    """How some files were read."""

    files: int
    accepted: int
    failures: Sequence[Failure]
    slowest: float
    """Seconds of the CPU."""
    memory: int
    """The most that the process had, in bytes."""


def content_of(kind: str, name: str) -> bytes:
    """Return the damaged file of a name."""
    return mutate(kind, originals(kind), name)


def read_files(kind: str, names: Sequence[str], folder: Path) -> Figures:
    """Read the files of these names, in a process that is started again where it dies."""
    originals(kind)
    left = list(names)
    accepted, slowest, memory = 0, 0.0, 0
    failures = []
    while left:
        output, inner = os.pipe()
        worker = os.fork()
        if not worker:
            os.close(output)
            _work(kind, left, folder, inner)
        os.close(inner)
        with os.fdopen(output, encoding="utf-8") as lines:
            for line in lines:
                done, took, well = line.rstrip("\n").split("\t", 2)
                left.remove(done)
                slowest = max(slowest, float(took))
                accepted += well == "accepted"
                if well not in ("accepted", "refused"):
                    failures.append(Failure(done, well.replace("\v", "\n")))
        _, status, usage = os.wait4(worker, 0)
        memory = max(memory, usage.ru_maxrss << 10)
        if left:  # it died at the first of them
            failures.append(Failure(left.pop(0), f"the process died with status {status:#x}"))
    return Figures(len(names), accepted, failures, slowest, memory)


def _work(kind: str, names: Sequence[str], folder: Path, output: int) -> None:
    """Read files and write a line for each: name, seconds, and `accepted`, `refused` or what is wrong."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, _too_slow)
    path = folder / f"{kind}.{os.getpid()}"
    for number, (name, started, content) in enumerate(_contents(kind, names)):
        if number % _COLLECTED == 0:
            gc.collect()  # what a command froze, and `read` unfroze, would wait too long
        path.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            told = "accepted" if read(kind, path) else "refused"
        except BaseException:  # noqa: BLE001  # any of them is a finding
            told = traceback.format_exc().replace("\n", "\v").replace("\t", " ")
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(output, f"{name}\t{time.process_time() - started:.3f}\t{told}\n".encode())
    os._exit(0)


def _contents(kind: str, names: Sequence[str]) -> Iterator[tuple[str, float, bytes]]:
    for name in names:
        content = content_of(kind, name)
        yield name, time.process_time(), content


def _too_slow(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS} s")
