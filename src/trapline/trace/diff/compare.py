"""Compares two traces: a pure function of their records."""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trapline.trace.questions.rows import Row

from .align import CutOff, Found, align
from .anchors import Keys
from .edits import Edit, Edits, Kind, edits
from .fetch import Records, fetch
from .keys import By, Keyed, keyed
from .randomised import Randomised

Starts: TypeAlias = tuple[NDArray[np.uint64] | None, NDArray[np.uint64] | None]
SHOWN: Final = 20
"""How many differences and counts there are in a `Difference`."""


class Change(NamedTuple):
    """One difference."""

    kind: Kind
    a: Row | None
    """The record of the first trace; None: it has none."""
    b: Row | None
    """The record of the second trace; None: it has none."""


class Parting(NamedTuple):
    """Where two traces first part. Records have the general registers."""

    common: int
    """How many records before it are the same."""
    kind: Kind
    before: tuple[Row, Row] | None
    """The last record before it, in each trace; None: they part at once."""
    a: Row | None
    """The next record of the first trace; None: it has ended."""
    b: Row | None
    """The next record of the second trace; None: it has ended."""


class Count(NamedTuple):
    """How often the same exception was raised, where that changed."""

    example: Row
    """One of them."""
    a: int
    b: int


class States(NamedTuple):
    """The records that are the same exception in another state. Records have the general registers."""

    times: int
    a: Row
    """The first of them in the first trace."""
    b: Row
    """The same in the second trace."""


class Difference(NamedTuple):
    """The difference of two traces."""

    counts: tuple[int, int]
    """The records of each."""
    common: int
    """Records that both have, in the same order."""
    new: int
    gone: int
    moved: int
    changed: int
    parting: Parting | None
    """None: they are the same."""
    changes: tuple[Change, ...]
    """The first differences, in the order of the traces."""
    recounted: tuple[Count, ...]
    """The exceptions whose counts changed most."""
    recounted_in_all: int
    """How many there are."""
    names: bool
    """Whether places were compared by name, where there are names."""
    randomised: tuple[Randomised, ...]
    """How addresses were compared that could not be as they are."""
    states: States | None
    """None: all are the same, or states were not compared."""
    cut_off: CutOff | None
    """Records that were not aligned, because the traces have too little in common there: what both have of them counts
    as moved. None: all were."""

    @property
    def same(self) -> bool:
        """Whether the traces are the same."""
        return self.parting is None and self.states is None


def compare(a: Records, b: Records, *, by: By = By.PLACE, state: bool = False, ordered: bool = True) -> Difference:
    """Compare two traces by the vectors, the places and the error codes of their records.

    `state`: records that are the same so must be equal in everything but time. `ordered`: the `seq` of records grows in
    each trace; it does not in several traces after one another. Raises UsageError for a damaged trace, MissingExtra
    without pyarrow. It takes some 35 bytes of memory for each record of both.
    """
    keys = keyed(a, b, by, state=state)
    found, cut_off = align(keys.a, keys.b)
    all_edits = edits(keys.a, keys.b, found)
    starts: Starts = keys.starts if ordered else (None, None)
    changes = all_edits.first(SHOWN)
    examples, recounted = _recounted(keys, all_edits)
    wanted = (
        [edit.a for edit in changes if edit.a is not None] + [at for at, _, _ in examples if at is not None],
        [edit.b for edit in changes if edit.b is not None]
        + [other for at, other, _ in examples if at is None and other is not None],
    )
    rows = [fetch(*each, registers=False) if each[1] else {} for each in zip((a, b), wanted, starts, strict=True)]
    return Difference(
        (keys.a.size, keys.b.size),
        int(np.count_nonzero(found >= 0)),
        all_edits.new.size,
        all_edits.gone.size,
        all_edits.moved[0].size,
        all_edits.changed[0].size,
        _parting(a, b, keys, all_edits, starts),
        tuple(_change(edit, rows) for edit in changes),
        tuple(Count(rows[0][at] if at is not None else rows[1][other or 0], *counts) for at, other, counts in examples),
        recounted,
        keys.names,
        keys.randomised,
        _states(a, b, keys, found, starts),
        cut_off,
    )


def _change(edit: Edit, rows: list[dict[int, Row]]) -> Change:
    return Change(
        edit.kind,
        None if edit.a is None else rows[0][edit.a],
        None if edit.b is None else rows[1][edit.b],
    )


def _recounted(keys: Keyed, found: Edits) -> tuple[list[tuple[int | None, int | None, tuple[int, int]]], int]:
    """Return for the keys whose counts changed most an index in either trace and both counts; and how many keys."""
    gone = np.concatenate((found.gone, found.changed[0]))
    new = np.concatenate((found.new, found.changed[1]))
    values, places = np.unique(np.concatenate((keys.a[gone], keys.b[new])), return_inverse=True)
    change = np.bincount(places[gone.size :], minlength=values.size) - np.bincount(
        places[: gone.size], minlength=values.size
    )
    shown = np.argsort(-np.abs(change), kind="stable")[:SHOWN]
    rows = []
    for value in values[shown[change[shown] != 0]]:
        here = [side == value for side in (keys.a, keys.b)]
        first, second = (int(np.count_nonzero(side)) for side in here)
        one, two = (int(side.argmax()) if count else None for side, count in zip(here, (first, second), strict=True))
        rows.append((one, two, (first, second)))
    return rows, int(np.count_nonzero(change))


def _parting(a: Records, b: Records, keys: Keyed, found: Edits, starts: Starts) -> Parting | None:
    if not any(side.size for side in found.order):
        return None
    at = min(int(side[0]) for side in found.order if side.size)
    edit = found.kind_at(at)
    assert edit is not None
    sides: list[dict[int, Row]] = []
    for records, side, start in zip((a, b), (keys.a, keys.b), starts, strict=True):
        wanted = [place for place in (at - 1, at) if 0 <= place < side.size]
        sides.append(fetch(records, wanted, start, registers=True))
    before = (sides[0][at - 1], sides[1][at - 1]) if at else None
    return Parting(at, edit.kind, before, sides[0].get(at), sides[1].get(at))


def _states(a: Records, b: Records, keys: Keyed, found: Found, starts: Starts) -> States | None:
    if keys.state is None:
        return None
    first: Keys
    first, second = keys.state
    aligned = np.flatnonzero(found >= 0)
    differ = aligned[first[aligned] != second[found[aligned]]]
    if not differ.size:
        return None
    at, other = int(differ[0]), int(found[differ[0]])
    one = fetch(a, [at], starts[0], registers=True)[at]
    return States(differ.size, one, fetch(b, [other], starts[1], registers=True)[other])
