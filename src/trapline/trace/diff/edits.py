"""What became of the records that an alignment leaves: moved, changed, gone or new."""

from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .align import Found
from .anchors import Keys
from .both import both

Indices: TypeAlias = NDArray[np.integer[Any]]
"""Of 32 bits where there may be many."""
_REPLACED: Final = 8
"""As many records of each trace in the same place may be changed ones; of more, some are gone and others are new."""

_MANY: Final = 1 << 20
"""Of more records, moved ones are sought by their keys' first bits."""
_PART_BITS: Final = 3
_INDEX_BITS: Final = 24
_PART_SHIFT: Final = np.uint64(64 - _PART_BITS)


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
        return at - int(np.searchsorted(side, side.dtype.type(at))), edit.a is None, at


def edits(a: Keys, b: Keys, found: Found) -> Edits:
    """Return what became of the records of two traces that are not aligned."""
    gone = np.flatnonzero(found < 0).astype(np.int32)
    left = np.ones(b.size, np.bool_)
    left[found[found >= 0]] = False
    new = np.flatnonzero(left).astype(np.int32)
    order = gone, new
    first, second = _moved(a, b, gone, new)
    moved = gone[first], new[second]
    kept = [_others(side.size, at) for side, at in ((gone, first), (new, second))]
    gaps = [(side - _count(side))[some] for side, some in zip((gone, new), kept, strict=True)]
    gone, new = gone[kept[0]], new[kept[1]]
    first, second = _replaced(*gaps)
    changed = gone[first], new[second]
    return Edits(np.delete(gone, first), np.delete(new, second), moved, changed, order)


def _others(size: int, indices: Indices) -> NDArray[np.bool_]:
    found = np.ones(size, np.bool_)
    found[indices] = False
    return found


def _count(side: Indices) -> Indices:
    return np.arange(side.size, dtype=np.int32)


def _moved(a: Keys, b: Keys, gone: Indices, new: Indices) -> tuple[Indices, Indices]:
    """Return the places in `gone` and `new` of keys that both have, the n-th of a value with the n-th, in order."""
    sides = (a, gone), (b, new)
    partners = np.full(gone.size, -1, np.int32)
    many = max(gone.size, new.size) > _MANY
    if many:
        parts = [(keys[side] >> _PART_SHIFT).astype(np.uint8) for keys, side in sides]

        def pair(part: int) -> None:
            one, two = (np.flatnonzero(numbers == part).astype(np.int32) for numbers in parts)
            first, second = _ranked(a[gone[one]], b[new[two]])
            partners[one[first]] = two[second]

        for part in range(0, 1 << _PART_BITS, 2):  # the values of two at a time, for memory
            both(pair, part, part + 1)
    else:
        first, second = _ranked(a[gone], b[new])
        partners[first] = second
    first = np.flatnonzero(partners >= 0).astype(np.int32)
    return first, partners[first]


def _ranked(a: Keys, b: Keys) -> tuple[Indices, Indices]:
    """Return the indices of keys that both have, the n-th of a value with the n-th."""
    orders, found = zip(*(_sorted(keys) for keys in (a, b)), strict=True)
    one, two = map(_runs, found)
    _, at, other = np.intersect1d(one.values, two.values, assume_unique=True, return_indices=True)
    sizes = np.minimum(one.sizes[at], two.sizes[other])
    return orders[0][_spread(one.starts[at], sizes)], orders[1][_spread(two.starts[other], sizes)]


def _sorted(keys: Keys) -> tuple[Indices, Keys]:
    """Return the indices that sort keys, of which those of equal ones ascend, and the keys sorted.

    Keys are hashes: the order of their upper bits, with the index below, is found four times as fast by `np.sort`.
    """
    if keys.size <= 1 << _INDEX_BITS:
        low = np.uint64((1 << _INDEX_BITS) - 1)
        joined = np.sort(keys & ~low | np.arange(keys.size, dtype=np.uint64))
        order: Indices = (joined & low).astype(np.int32)
        found = keys[order]
        alike = joined[1:] ^ joined[:-1] <= low
        if not (alike & (found[1:] != found[:-1])).any():
            return order, found
    order = np.argsort(keys, kind="stable").astype(np.int32)
    return order, keys[order]


def _replaced(a: Indices, b: Indices) -> tuple[Indices, Indices]:
    """Return the indices of records, by their gaps, in each gap of which the two traces have the same few records."""
    one, two = _runs(a), _runs(b)
    _, at, other = np.intersect1d(one.values, two.values, assume_unique=True, return_indices=True)
    sizes = one.sizes[at]
    chosen = (sizes == two.sizes[other]) & (sizes <= _REPLACED)
    at, other, sizes = at[chosen], other[chosen], sizes[chosen]
    return _spread(one.starts[at], sizes), _spread(two.starts[other], sizes)


class _Runs(NamedTuple):
    """Runs of equal values."""

    values: NDArray[np.integer[Any]]
    starts: Indices
    sizes: Indices


def _runs(values: NDArray[np.integer[Any]]) -> _Runs:
    """Return the runs of sorted values."""
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: values.size])
    return _Runs(values[starts], starts, np.diff(np.append(starts, values.size)))


def _spread(starts: Indices, sizes: Indices) -> Indices:
    """Return the indices of runs, one run after another."""
    before = np.cumsum(sizes) - sizes
    found: Indices = np.repeat((starts - before).astype(np.int32), sizes)
    found += np.arange(found.size, dtype=np.int32)
    return found
