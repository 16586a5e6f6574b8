"""Aligns two sequences of up to many millions of keys: which element of one is which of the other.

What both begin and end with is taken first. Between, windows of keys that each has once are anchors, wide ones before
narrow ones (Bram Cohen's patience diff, with windows); what is left between anchors and is small enough is aligned by
its longest common subsequence, and what is not, step by step. Two sequences with few differences need no anchors. One
element that is added, removed, moved or changed gives the least difference.
"""

from collections import deque
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .anchors import Keys, runs
from .lcs import common
from .resync import ENOUGH, equal_start, resynchronised

Found: TypeAlias = NDArray[np.int32]

_WIDTHS: Final = (32, 8, 1)
"""Keys of a window."""
_TABLE: Final = 1 << 24
"""Bits of the largest table for a longest common subsequence."""
_WORK: Final = 3 << 28
"""All work on gaps together, in bits of tables; what is left then stays as it is. It takes some two seconds."""
_ROW: Final = 1 << 8
"""The work that is done once for a row of a table."""
_GAP: Final = 1 << 12
"""That which is done once for a gap."""
_SEARCH: Final = 1 << 16
"""That which is done once for a gap whose anchors are sought."""
_KEY: Final = 1 << 2
"""That which is done for each of its keys."""
_STEP: Final = 1 << 18
"""That of a difference that is passed over."""
_FEW: Final = 64
"""Differences that are passed over before anchors are sought."""
_STEPS: Final = 1 << 12
"""Differences that are passed over where there are no anchors."""


class Gap(NamedTuple):
    """What is not aligned yet, of both sequences."""

    start: int
    end: int
    other: int
    other_end: int
    level: int = -1
    """The windows to take; -1: none yet."""


class CutOff(NamedTuple):
    """What was left, because the sequences have too little in common there."""

    a: int
    """How many keys of the first sequence."""
    b: int
    """How many keys of the second sequence."""
    starts: tuple[int, int]
    """The indices, in each, of the first of them."""


class Aligned(NamedTuple):
    """What `align` found."""

    found: Found
    """For each key of the first sequence the index of the same one in the second, or -1."""
    cut_off: CutOff | None
    """None: all was aligned."""


class Alignment:
    """The alignment of two sequences as it is found."""

    def __init__(self, a: Keys, b: Keys) -> None:
        self._a, self._b = a, b
        self.found: Found = np.full(a.size, -1, np.int32)
        self.left: list[Gap] = []
        """Those that would take too long."""
        self._work = _WORK

    def close(self, gap: Gap) -> list[Gap]:
        """Align a gap, and return what is left to do."""
        start, end, other, other_end, level = gap
        same = equal_start(self._a[start:end], self._b[other:other_end])
        self._same(start, other, same)
        start, other = start + same, other + same
        same = equal_start(self._a[start:end][::-1], self._b[other:other_end][::-1])
        end, other_end = end - same, other_end - same
        self._same(end, other_end, same)
        rows, columns = end - start, other_end - other
        self._work -= _GAP
        if not rows or not columns or rows == columns == 1:
            return []
        gap = Gap(start, end, other, other_end, level)
        cost = rows * (columns + _ROW)
        if rows * columns <= _TABLE and cost <= self._work:
            self._work -= cost
            for at, column in common(self._a[start:end].tolist(), self._b[other:other_end].tolist()):
                self.found[start + at] = other + column
            return []
        if self._work <= 0:
            return self._leave(gap)
        if 0 <= level < len(_WIDTHS):
            self._work -= _SEARCH + _KEY * (rows + columns)
            return self._gaps(gap) if self._anchor(gap) else [gap._replace(level=level + 1)]
        steps, least = (_FEW, ENOUGH) if level < 0 else (_STEPS, 1)
        steps = min(steps, self._work // _STEP + 1)
        for at, column, size in resynchronised(self._a[start:end], self._b[other:other_end], steps, least):
            self._work -= _STEP
            self._same(start + at, other + column, size)
            gap = Gap(start + at + size, end, other + column + size, other_end)
        return [gap._replace(level=0)] if level < 0 else self._leave(gap)

    def cut_off(self) -> CutOff | None:
        """Return what was left."""
        if not self.left:
            return None
        first = min(self.left)
        rows, columns = (sum(sizes) for sizes in zip(*map(_sizes, self.left), strict=True))
        return CutOff(rows, columns, (first.start, first.other))

    def _leave(self, gap: Gap) -> list[Gap]:
        if all(_sizes(gap)):
            self.left.append(gap)
        return []

    def _same(self, start: int, other: int, size: int) -> None:
        self.found[start : start + size] = np.arange(other, other + size)

    def _anchor(self, gap: Gap) -> bool:
        """Align what anchors are in, and return whether anything is."""
        start, end, other, other_end, level = gap
        width, done = _WIDTHS[level], False
        if min(end - start, other_end - other) < width:
            return False
        for at, column, size in runs(self._a[start:end], self._b[other:other_end], width):
            first, second = start + at, other + column
            same = self._a[first : first + size] == self._b[second : second + size]
            self.found[first : first + size] = np.where(same, np.arange(second, second + size), -1)
            done = done or bool(same.any())
        return done

    def _gaps(self, gap: Gap) -> list[Gap]:
        """Return where both sequences have something between what is aligned, and more than one key each."""
        found = self.found[gap.start : gap.end]
        places = np.flatnonzero(found >= 0)
        values = found[places]
        jumps = np.flatnonzero((np.diff(places) != 1) | (np.diff(values) != 1))
        places, values = places + gap.start, values.astype(np.int64)
        starts = np.concatenate(([gap.start], places[jumps] + 1, places[-1:] + 1))
        ends = np.concatenate((places[:1], places[jumps + 1], [gap.end]))
        others = np.concatenate(([gap.other], values[jumps] + 1, values[-1:] + 1))
        other_ends = np.concatenate((values[:1], values[jumps + 1], [gap.other_end]))
        rows, columns = ends - starts, other_ends - others
        chosen = (rows > 0) & (columns > 0) & (rows + columns > 2)
        bounds = np.stack((starts, ends, others, other_ends), axis=1)[chosen]
        return [Gap(one, two, three, four, gap.level) for one, two, three, four in bounds.tolist()]


def align(a: Keys, b: Keys) -> Aligned:
    """Return for each key of `a` the index of the same one in `b`, which increase, or -1 where it is not there.

    What can be aligned only at great cost is left: both sequences have it, and all of it is -1.
    """
    alignment = Alignment(a, b)
    gaps = deque([Gap(0, a.size, 0, b.size)])
    while gaps:  # wide ones first: anchors that are found at little cost are found everywhere
        gaps += alignment.close(gaps.popleft())
    return Aligned(alignment.found, alignment.cut_off())


def _sizes(gap: Gap) -> tuple[int, int]:
    return gap.end - gap.start, gap.other_end - gap.other
