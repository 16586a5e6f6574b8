"""Functions as disjoint ranges of addresses: a lookup is one bisection."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

NOBODY: Final = -1


class Function(NamedTuple):
    """A symbol of a symbol table."""

    start: int
    size: int
    """In bytes; 0: unknown, it ends where the next one starts."""
    name: str
    rank: int
    """Of several names of an address the one with the lowest rank is used."""


class Ranges:
    """Sorted boundaries, and the function from each boundary to the next."""

    def __init__(self, functions: Sequence[Function], ends: Iterable[int] = ()) -> None:
        """`ends` are addresses at which functions without a size end at the latest: the ends of sections."""
        named, self.labels = _without_labels(_one_name_each(functions))
        self.functions = _sized(named, sorted(ends))
        self.bounds: list[int] = []
        self.owners: list[int] = []
        self._sweep()

    def find(self, address: int) -> Function | None:
        """Return the function at an address; of nested ones the innermost."""
        place = bisect_right(self.bounds, address) - 1
        owner = self.owners[place] if place >= 0 else NOBODY
        return None if owner == NOBODY else self.functions[owner]

    def _sweep(self) -> None:
        inside: list[tuple[int, int]] = []  # end and number of the functions around the address, innermost last
        for number, function in enumerate(self.functions):
            self._leave(inside, function.start)
            inside.append((function.start + function.size, number))
            self._mark(function.start, number)
        self._leave(inside, None)

    def _leave(self, inside: list[tuple[int, int]], place: int | None) -> None:
        """Leave the functions that end at or before an address."""
        while inside and (place is None or inside[-1][0] <= place):
            end, _ = inside.pop()
            while inside and inside[-1][0] <= end:  # one that overlaps, and ended in between
                inside.pop()
            self._mark(end, inside[-1][1] if inside else NOBODY)

    def _mark(self, address: int, owner: int) -> None:
        if self.bounds and self.bounds[-1] == address:
            self.owners[-1] = owner
        else:
            self.bounds.append(address)
            self.owners.append(owner)


def _one_name_each(functions: Iterable[Function]) -> list[Function]:
    chosen: dict[int, Function] = {}
    for function in functions:
        other = chosen.get(function.start)
        if other is None or (function.size == 0, function.rank) < (other.size == 0, other.rank):
            chosen[function.start] = function
    return sorted(chosen.values(), key=attrgetter("start"))


def _without_labels(functions: Sequence[Function]) -> tuple[list[Function], list[Function]]:
    """Split NASM's local labels off, which follow their function and are named after it: `main.loop` in `main`."""
    found: list[Function] = []
    labels: list[Function] = []
    for function in functions:
        owner, dot, _ = function.name.partition(".")
        local = dot and owner and not function.size and found and found[-1].name == owner
        (labels if local else found).append(function)
    return found, labels


def _sized(functions: Sequence[Function], ends: Sequence[int]) -> list[Function]:
    """Give each function a size, and leave out labels inside functions that have one."""
    found = []
    covered = 0
    last = Function(functions[-1].start + 1 if functions else 0, 0, "", 0)
    for function, following in pairwise((*functions, last)):
        start, size = function.start, function.size
        if size:
            covered = max(covered, start + size)
            found.append(function)
            continue
        if start < covered:
            continue
        place = bisect_right(ends, start)
        section_end = ends[place] if place < len(ends) else start
        end = section_end if following is last else min(following.start, section_end)
        if end > start:
            found.append(function._replace(size=end - start))
    return found
