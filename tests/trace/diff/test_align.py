"""What is aligned is equal and in order, and one difference is found as the least there is."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trapline.trace.diff import align as alignment
from trapline.trace.diff import edits as editing
from trapline.trace.diff.align import align
from trapline.trace.diff.edits import Edit, Kind, edits

KEYS = st.lists(st.integers(0, 5), max_size=60)


def keys(values):
    return np.array(values, np.uint64)


def longest(a, b):
    row = [0] * (len(b) + 1)
    for one in a:
        last, row = row, [0]
        for column, two in enumerate(b):
            row.append(last[column] + 1 if one == two else max(last[column + 1], row[-1]))
    return row[-1]


@settings(deadline=None, max_examples=200)
@given(a=KEYS, b=KEYS)
def test_short_sequences_have_a_longest_common_subsequence(a, b):
    found = align(keys(a), keys(b)).found
    pairs = [(at, int(other)) for at, other in enumerate(found) if other >= 0]
    assert all(a[at] == b[other] for at, other in pairs)
    assert [other for _, other in pairs] == sorted({other for _, other in pairs})
    assert len(pairs) == longest(a, b)


@pytest.mark.parametrize(("table", "loops"), [(0, 50), (1 << 24, 50), (0, 3)])
def test_long_sequences_are_aligned_around_many_differences(monkeypatch, table, loops):
    monkeypatch.setattr(alignment, "_TABLE", table)
    generator = np.random.default_rng(loops)
    a = generator.integers(0, 5000 if loops == 50 else 2, 20_000).astype(np.uint64)
    removed, added = generator.choice(a.size, (2, loops), replace=False)
    b = np.insert(np.delete(a, removed), added, np.uint64(9999))
    found = align(a, b).found
    aligned = found >= 0
    assert np.array_equal(a[aligned], b[found[aligned]])
    assert (np.diff(found[aligned]) > 0).all()
    assert np.count_nonzero(~aligned) <= 2 * loops


def test_what_has_nothing_in_common_is_left():
    assert (align(keys([1] * 5000), keys([2] * 5000)).found == -1).all()


def test_traces_with_thousands_of_differences_are_not_cut_off():
    generator = np.random.default_rng(2)
    a = generator.integers(0, 9000, 200_000).astype(np.uint64)
    removed, added = generator.choice(a.size - 4000, (2, 4000), replace=False)
    found, cut_off = align(a, np.insert(np.delete(a, removed), added, np.uint64(9999)))
    assert cut_off is None
    assert np.count_nonzero(found < 0) <= 2 * 4000


@pytest.mark.parametrize("many", [1 << 20, 100])
def test_of_what_has_little_in_common_the_rest_is_cut_off(monkeypatch, many):
    monkeypatch.setattr(alignment, "_WORK", 1 << 24)
    monkeypatch.setattr(editing, "_MANY", many)
    generator = np.random.default_rng(1)
    a, b = generator.integers(0, 1 << 63, 99, np.uint64)[generator.integers(0, 99, (2, 30_000))]
    a[:100] = b[:100]
    found, cut_off = align(a, b)
    assert np.array_equal(found[:100], np.arange(100))
    assert 100 <= cut_off.starts[0] < 10_000
    assert 20_000 < cut_off.a <= np.count_nonzero(found < 0)
    left = edits(a, b, found)
    first, second = left.moved
    assert np.array_equal(a[first], b[second])
    rest, other = Counter(a[found < 0].tolist()), Counter(np.delete(b, found[found >= 0]).tolist())
    assert first.size == (rest & other).total()
    assert (left.gone.size + left.changed[0].size, left.new.size + left.changed[1].size) == (
        (rest - other).total(),
        (other - rest).total(),
    )


@settings(deadline=None, max_examples=100)
@given(data=st.data(), many=st.sampled_from([1, 2, 5, 50]), kind=st.sampled_from(Kind))
def test_one_planted_difference_is_pointed_at(data, many, kind):
    a = data.draw(st.lists(st.integers(0, many), min_size=1, max_size=200))
    at = data.draw(st.integers(0, len(a) - 1))
    b = list(a)
    if kind is Kind.NEW:
        b.insert(at, data.draw(st.integers(0, many + 1)))
    elif kind is Kind.GONE:
        del b[at]
    elif kind is Kind.CHANGED:
        b[at] = data.draw(st.integers(0, many + 1))
    else:
        b.insert(data.draw(st.integers(0, len(a) - 1)), b.pop(at))
    found = edits(keys(a), keys(b), align(keys(a), keys(b)).found)
    counts = {Kind.NEW: found.new, Kind.GONE: found.gone, Kind.MOVED: found.moved[0], Kind.CHANGED: found.changed[0]}
    assert {each: rows.size for each, rows in counts.items()} == {each: int(each is kind and a != b) for each in Kind}
    if a != b:
        parts = next((place for place in range(min(len(a), len(b))) if a[place] != b[place]), min(len(a), len(b)))
        (first,) = found.first(5)
        assert first == found.kind_at(parts)
        assert first.kind is kind
        assert parts in (first.a, first.b)


def test_differences_are_in_the_order_of_the_traces():
    a, b = keys([1, 2, 3, 4, 5, 6, 7, 8]), keys([1, 3, 9, 4, 2, 5, 10, 7, 8, 11])
    found = edits(a, b, align(a, b).found)
    assert found.first(9) == [
        Edit(Kind.MOVED, 1, 4),
        Edit(Kind.NEW, None, 2),
        Edit(Kind.CHANGED, 5, 6),
        Edit(Kind.NEW, None, 9),
    ]
    assert found.first(2) == found.first(9)[:2]
