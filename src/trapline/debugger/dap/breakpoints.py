"""Breakpoints: on lines, functions, instructions and memory. They outlive a restart of the guest."""

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple

from trapline.errors import TraplineError, UsageError
from trapline.machine.processor import Watchpoint

from . import bodies
from .debuggee import Debuggee

_HITS: Final = re.compile(r"\s*(==|=|>=|>|<=|<|%)?\s*([0-9]{1,9})\s*", re.ASCII)
_COMPARED: Final[dict[str, Callable[[int, int], bool]]] = {
    "=": lambda hits, wanted: hits == wanted,
    ">=": lambda hits, wanted: hits >= wanted,
    ">": lambda hits, wanted: hits > wanted,
    "<=": lambda hits, wanted: hits <= wanted,
    "<": lambda hits, wanted: hits < wanted,
    "%": lambda hits, wanted: wanted > 0 and hits % wanted == 0,
}
_INSERTED: Final = re.compile(r"\{([^{}]*)\}")


class Kind(Enum):
    """What a breakpoint is on, by the reason of its stop."""

    LINE = "breakpoint"
    FUNCTION = "function breakpoint"
    INSTRUCTION = "instruction breakpoint"
    DATA = "data breakpoint"


class Place(NamedTuple):
    """Where a breakpoint is."""

    addresses: tuple[int, ...] = ()
    line: int | None = None
    watched: Watchpoint | None = None


class Wanted(NamedTuple):
    """A breakpoint as a client wants it."""

    find: Callable[[Debuggee], Place]
    """Returns where it is; raises TraplineError with the reason why it is nowhere."""
    condition: str | None = None
    hit_condition: str | None = None
    log: str | None = None
    source: bodies.Source | None = None


class Point:
    """A breakpoint, and where it is in the guest that runs now."""

    def __init__(self, number: int, kind: Kind, wanted: Wanted) -> None:
        self.number, self.kind, self.wanted = number, kind, wanted
        self.place = Place()
        self.problem: str | None = "the guest was not launched yet"
        self.hits = 0
        self._counts = _counts(wanted.hit_condition)

    def find(self, debuggee: Debuggee) -> None:
        """Look up where it is."""
        self.place, self.problem = Place(), None
        try:
            if self.wanted.hit_condition and self._counts is None:
                raise UsageError(f"{self.wanted.hit_condition!r}: a number of hits is 5, >= 5 or % 5")
            self.place = self.wanted.find(debuggee)
        except TraplineError as error:
            self.problem = str(error)

    def stops(self, debuggee: Debuggee, log: Callable[[str], None]) -> bool:
        """Count that the guest came here, and return whether it stops. A message is logged instead."""
        try:
            if self.wanted.condition and not debuggee.evaluate(self.wanted.condition).number:
                return False
        except TraplineError as error:
            log(f"the condition of a breakpoint: {error}\n")
            return True
        self.hits += 1
        if self._counts is not None and not self._counts(self.hits):
            return False
        if self.wanted.log is None:
            return True
        log(f"{_INSERTED.sub(lambda match: _inserted(debuggee, match[1]), self.wanted.log)}\n")
        return False

    def body(self) -> bodies.Breakpoint:
        """Return what a client is told."""
        line, addresses = self.place.line, self.place.addresses
        return bodies.Breakpoint(
            self.problem is None,
            self.number,
            self.problem,
            self.wanted.source,
            line,
            f"{addresses[0]:#x}" if addresses else None,
        )


class Points:
    """All breakpoints."""

    def __init__(self) -> None:
        self._numbers = 0
        self._points: dict[tuple[Kind, str], list[Point]] = {}
        self._inserted: frozenset[int] = frozenset()
        self._watched: frozenset[Watchpoint] = frozenset()

    def replace(self, kind: Kind, of: str, wanted: Iterable[Wanted], debuggee: Debuggee | None) -> list[Point]:
        """Set the breakpoints of a kind, and of a source, in place of those that were."""
        points = []
        for each in wanted:
            self._numbers += 1
            points.append(Point(self._numbers, kind, each))
        self._points[kind, of] = points
        if debuggee is not None:
            self._find(points, debuggee)
            self._insert(debuggee)
        return points

    def launched(self, debuggee: Debuggee) -> list[Point]:
        """Set all in a guest that was launched; return them."""
        self._inserted, self._watched = frozenset(), frozenset()
        points = list(self)
        for point in points:
            point.hits = 0
        self._find(points, debuggee)
        self._insert(debuggee)
        return points

    def find_again(self, debuggee: Debuggee) -> list[Point]:
        """Look all up again, for symbols were placed; return those that are elsewhere than before."""
        points = list(self)
        before = [(point.place, point.problem) for point in points]
        self._find(points, debuggee)
        self._insert(debuggee)
        return [point for point, was in zip(points, before, strict=True) if (point.place, point.problem) != was]

    @property
    def are_missing(self) -> bool:
        """Whether some are nowhere."""
        return any(point.problem is not None for point in self)

    def at(self, address: int) -> list[Point]:
        """Return those at an address."""
        return [point for point in self if address in point.place.addresses]

    def on(self, watched: Watchpoint) -> list[Point]:
        """Return those on memory."""
        return [point for point in self if point.place.watched == watched]

    def __iter__(self) -> Iterator[Point]:
        for points in self._points.values():
            yield from points

    def _find(self, points: list[Point], debuggee: Debuggee) -> None:
        for point in points:
            point.find(debuggee)

    def _insert(self, debuggee: Debuggee) -> None:
        """Make the machine stop at what is wanted; what it cannot do becomes the problem of the breakpoint."""
        machine = debuggee.machine
        addresses = frozenset(address for point in self for address in point.place.addresses)
        for address in self._inserted - addresses:
            machine.breakpoints.remove(address)
        self._inserted &= addresses
        for point in self:
            try:
                for address in set(point.place.addresses) - self._inserted:
                    machine.breakpoints.add(address)
                    self._inserted |= {address}
            except UsageError as error:
                point.place, point.problem = Place(), str(error)
        wanted = {point.place.watched for point in self if point.place.watched is not None}
        for old in self._watched - wanted:
            machine.watchpoints.remove(old)
        self._watched &= wanted
        for point in self:
            watched = point.place.watched
            if watched is not None and watched not in self._watched:
                try:
                    machine.watchpoints.add(watched.address, watched.size, "rw" if watched.reads else "w")
                    self._watched |= {watched}
                except UsageError as error:
                    point.place, point.problem = Place(), str(error)


def _counts(text: str | None) -> Callable[[int], bool] | None:
    match = _HITS.fullmatch(text or "")
    if match is None:
        return None
    compare, wanted = _COMPARED[{None: "=", "==": "="}.get(match[1], match[1])], int(match[2])
    return lambda hits: compare(hits, wanted)


def _inserted(debuggee: Debuggee, text: str) -> str:
    try:
        value = debuggee.evaluate(text)
    except TraplineError as error:
        return f"<{error}>"
    return debuggee.named(value.number) if value.is_symbol else f"{value.number:#x}"
