"""What the benchmarks measured, as values: each round of each candidate, and the ratios that they make.

`figures.json` has them for README, which `python -m tools.cost_section` writes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

PATH: Final = Path(__file__).with_name("figures.json")
ADDITION = "addition"
SYSTEM_CALL = "system call"
YARDSTICKS: Final = (ADDITION, SYSTEM_CALL)
"""Candidates that every table has, so that figures of two machines can be compared: see `measure`."""
YARDSTICK_TIMES: Final = 1_000_000

Clock: TypeAlias = Literal["seconds", "used"]


class Rounds(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a candidate cost, round by round."""

    seconds: tuple[float, ...]
    """Seconds that it took."""
    used: tuple[float, ...]
    """Seconds of processor time, of this process and of those it waited for: on a busy machine they vary less."""
    memory: tuple[int, ...] = ()
    """The most memory that it had, in bytes, where that was measured."""


class Table(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Candidates that were measured in turn."""

    title: str
    rounds: dict[str, Rounds]
    """Of each candidate, with the yardsticks."""
    against: tuple[str, ...] = ()
    """The candidates that the others are compared with."""
    times: int = 1
    """How many exceptions, or records, a run of a candidate has."""
    shares: dict[str, str | None] = {}
    """Candidates of which one exception's cost is of interest, each with the candidate that does the same without."""
    counts: dict[str, dict[str, int]] = {}
    """What else was counted: of a candidate, what, and how often."""

    def median(self, name: str, clock: Clock = "seconds") -> float:
        """Return the median of a candidate's rounds, in seconds."""
        rounds = self.rounds[name]
        return statistics.median(rounds.seconds if clock == "seconds" else rounds.used)

    def ratio(self, name: str, peer: str, clock: Clock = "seconds") -> float:
        """Return how many times the cost of its peer a candidate costs."""
        return self.median(name, clock) / self.median(peer, clock)

    def share(self, name: str) -> float:
        """Return the seconds that one exception of a candidate takes."""
        peer = self.shares[name]
        return (self.median(name) - (self.median(peer) if peer else 0)) / self.times

    def unit(self, yardstick: str) -> float:
        """Return the seconds that one addition, or one system call, took among these rounds."""
        return self.median(yardstick) / YARDSTICK_TIMES


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured, and on what."""

    cpu: str
    cores: int
    qemu: str
    unicorn: str
    python: str


class Measurement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one benchmark measured."""

    machine: Machine
    load: tuple[float, float]
    """The machine's load average over a minute, as it began and as it ended."""
    tables: dict[str, Table]


Figures: TypeAlias = dict[str, Measurement]


def load(path: Path = PATH) -> Figures:
    """Return the figures of a file by the names of the benchmarks; none where there is no such file."""
    return msgspec.json.decode(path.read_bytes(), type=Figures) if path.exists() else {}


def save(figures: Mapping[str, Measurement], path: Path) -> None:
    """Write figures to a file, which keeps those of other benchmarks."""
    path.write_text(text(load(path) | dict(figures)), encoding="utf-8")


def text(figures: Mapping[str, Measurement]) -> str:
    """Return the content of a file: JSON, with the rounds of a candidate in one line."""
    return _json(msgspec.to_builtins(dict(sorted(figures.items()))), "\n") + "\n"


def _json(value: object, newline: str) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    inner = newline + " "
    members = (f"{inner}{json.dumps(name)}: {_json(member, inner)}" for name, member in value.items())
    return f"{{{','.join(members)}{newline}}}"
