"""Where two long sequences surely correspond: runs of windows that each of them has once."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .both import both

Keys = NDArray[np.uint64]
_MANY: Final = 1 << 20
"""In a sequence of more keys, one window of 16 is taken: the same ones in both, by their hash."""
_AT_ONCE: Final = 1 << 15
"""Windows that are hashed at a time."""
_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)


class Run(NamedTuple):
    """Windows in the same order in both sequences, at one distance."""

    a: int
    b: int
    length: int
    """From the start of the first window to the end of the last one; what is between windows may differ."""


def runs(a: Keys, b: Keys, width: int) -> list[Run]:
    """Return runs of windows of `width` keys, a power of two, in the order of both sequences, without overlap."""
    many = max(a.size, b.size) > _MANY
    (values_a, at_a), (values_b, at_b) = both(partial(_unique, width=width, many=many), a, b, at_once=many)
    _, first, second = np.intersect1d(values_a, values_b, assume_unique=True, return_indices=True)
    starts, others = at_a[first], at_b[second]
    order = np.argsort(starts)
    starts, others = starts[order], others[order]
    if not starts.size:
        return []
    ends = np.flatnonzero(np.diff(others - starts)) + 1
    heads, tails = np.concatenate(([0], ends)), np.concatenate((ends, [starts.size])) - 1
    chosen = np.array(_heaviest(others[heads].tolist(), others[tails].tolist(), (tails - heads + 1).tolist()))
    heads, tails = heads[chosen], tails[chosen]
    first_a, first_b = starts[heads], others[heads]
    length = starts[tails] - first_a + width
    room = np.minimum(np.diff(first_a), np.diff(first_b))
    length[:-1] = np.minimum(length[:-1], room)
    return [Run(*each) for each in zip(first_a.tolist(), first_b.tolist(), length.tolist(), strict=True)]


def _unique(keys: Keys, width: int, *, many: bool) -> tuple[Keys, NDArray[np.int64]]:
    """Return the hashes of the windows that a sequence has once, sorted, and where they are.

    Their upper bits are sorted, with the index below: `np.sort` is four times as fast as `np.argsort`. Windows whose
    hashes have the same upper bits, which are few, are left out.
    """
    parts, chosen = [], []
    for start in range(0, keys.size - width + 1, _AT_ONCE):
        part = _windows(keys[start : start + _AT_ONCE + width - 1], width)
        if many:
            some = np.flatnonzero(part & np.uint64(0xF) == 0)
            part = part[some]
            chosen.append(some + start)
        parts.append(part)
    hashes = np.concatenate(parts)
    low = np.uint64((1 << hashes.size.bit_length()) - 1)
    joined = np.sort(hashes & ~low | np.arange(hashes.size, dtype=np.uint64))
    differs = joined[1:] ^ joined[:-1] > low
    once = np.append(differs, True) & np.insert(differs, 0, True) if hashes.size else np.zeros(0, np.bool_)
    places = (joined[once] & low).astype(np.int64)
    return hashes[places], np.concatenate(chosen)[places] if many else places


def _windows(keys: Keys, width: int) -> Keys:
    """Return a hash of each window."""
    hashes, done = keys * _FACTOR, 1  # of small numbers all upper bits are alike
    while done < width:
        following = hashes[done:]
        hashes = hashes[:-done] * _FACTOR
        hashes += following
        hashes ^= hashes >> np.uint64(29)
        done *= 2
    return hashes


def _heaviest(starts: Sequence[int], ends: Sequence[int], weights: Sequence[int]) -> list[int]:
    """Return the indices of an increasing sequence of intervals with the greatest weight, in their order."""
    last: list[int] = []  # ends of the best sequences so far, increasing as their weights do
    best: list[tuple[int, int]] = []  # the weight of each, and its last interval
    before: list[int] = []
    for number, (start, end, weight) in enumerate(zip(starts, ends, weights, strict=True)):
        at = bisect_left(last, start)
        total, previous = best[at - 1] if at else (0, -1)
        total += weight
        before.append(previous)
        at = bisect_left(last, end)
        if at and best[at - 1][0] >= total:
            continue
        stop = at
        while stop < len(last) and best[stop][0] <= total:
            stop += 1
        last[at:stop], best[at:stop] = [end], [(total, number)]
    chosen = []
    number = best[-1][1] if best else -1
    while number >= 0:
        chosen.append(number)
        number = before[number]
    return chosen[::-1]
