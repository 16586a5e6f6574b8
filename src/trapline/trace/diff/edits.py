"""What became of the records that an alignment leaves: moved, changed, gone or new."""

from enum import Enum
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .align import Found
from .anchors import Keys

Indices: TypeAlias = NDArray[np.int64]
_REPLACED: Final = 8
"""As many records of each trace in the same place may be changed ones; of more, some are gone and others are new."""


class Kind(Enum):
    """What is different."""

    NEW = "new"
    """Only the second trace has it."""
    GONE = "gone"
    """Only the first trace has it."""
    MOVED = "moved"
    """Both have it, in another place among the others."""
    CHANGED = "changed"
    """The second trace has another one in its place."""


class Edit(NamedTuple):
    """One difference, with the indices of its records."""

    kind: Kind
    a: int | None
    b: int | None


class Edits(NamedTuple):
    """All differences of two traces."""

    gone: Indices
    new: Indices
    moved: tuple[Indices, Indices]
    changed: tuple[Indices, Indices]
    order: tuple[Indices, Indices]
    """All of the first trace that are not aligned, and all of the second, ascending."""

    def first(self, limit: int) -> list[Edit]:
        """Return the first ones, as the traces have them."""
        rows = [
            *((Kind.GONE, at, None) for at in self.gone[:limit].tolist()),
            *((Kind.NEW, None, at) for at in self.new[:limit].tolist()),
            *((Kind.MOVED, *pair) for pair in zip(*(side[:limit].tolist() for side in self.moved), strict=True)),
            *((Kind.CHANGED, *pair) for pair in zip(*(side[:limit].tolist() for side in self.changed), strict=True)),
        ]
        edits = [Edit(*row) for row in rows]
        return sorted(edits, key=self._place)[:limit]

    def kind_at(self, index: int) -> Edit | None:
        """Return the difference of the records with an index in both traces, before which all are aligned."""
        for kind, (first, second) in ((Kind.CHANGED, self.changed), (Kind.MOVED, self.moved)):
            for side in (first, second):
                place = np.flatnonzero(side == index)
                if place.size:
                    return Edit(kind, int(first[place[0]]), int(second[place[0]]))
        if index in self.gone:
            return Edit(Kind.GONE, index, None)
        return Edit(Kind.NEW, None, index) if index in self.new else None

    def _place(self, edit: Edit) -> tuple[int, bool, int]:
        """Return the number of records before it that are aligned, then what comes first."""
        at, side = (edit.b, self.order[1]) if edit.a is None else (edit.a, self.order[0])
        assert at is not None
        return at - int(np.searchsorted(side, at)), edit.a is None, at


def edits(a: Keys, b: Keys, found: Found) -> Edits:
    """Return what became of the records of two traces that are not aligned."""
    gone = np.flatnonzero(found < 0)
    left = np.ones(b.size, np.bool_)
    left[found[found >= 0]] = False
    new = np.flatnonzero(left)
    order = gone, new
    first, second = _pairs(_ranked(a[gone], b[new]))
    moved = gone[first], new[second]
    gaps = [side - np.arange(side.size) for side in (gone, new)]
    kept = [np.delete(gaps[0], first), np.delete(gaps[1], second)]
    gone, new = np.delete(gone, first), np.delete(new, second)
    first, second = _pairs(_replaced(*kept))
    changed = gone[first], new[second]
    return Edits(np.delete(gone, first), np.delete(new, second), moved, changed, order)


def _ranked(a: Keys, b: Keys) -> tuple[Indices, Indices]:
    """Return a number for each key: the same one for the n-th of a value in both."""
    _, codes = np.unique(np.concatenate((a, b)), return_inverse=True)
    return _with_rank(codes[: a.size]), _with_rank(codes[a.size :])


def _with_rank(codes: Indices) -> Indices:
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.searchsorted(ordered, ordered)
    ranks = np.empty(codes.size, np.int64)
    ranks[order] = np.arange(codes.size) - starts
    return codes << 32 | ranks


def _replaced(a: Indices, b: Indices) -> tuple[Indices, Indices]:
    """Return the same of gaps; a gap of which the two traces have not the same few records has negative numbers."""
    numbers = []
    for side, other in ((a, b), (b, a)):
        size = np.searchsorted(side, side, "right") - np.searchsorted(side, side)
        sizes = np.searchsorted(other, side, "right") - np.searchsorted(other, side)
        numbers.append(np.where((size == sizes) & (size <= _REPLACED), _with_rank(side), -1 - np.arange(side.size)))
    numbers[1][numbers[1] < 0] -= numbers[0].size  # none is equal to one of the other
    return numbers[0], numbers[1]


def _pairs(numbers: tuple[Indices, Indices]) -> tuple[Indices, Indices]:
    """Return the indices of numbers that both have, in the order of the first."""
    _, first, second = np.intersect1d(*numbers, assume_unique=True, return_indices=True)
    order = np.argsort(first)
    return first[order], second[order]
