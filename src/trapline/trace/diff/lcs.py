"""The longest common subsequence of two short sequences, by the bits of Python's integers.

Crochemore et al., "A fast and practical bit-vector algorithm for the longest common subsequence problem" (2001): a row
of the table is one integer, whose bit is 0 where the length grows from a column to the next.
"""

from collections.abc import Sequence


def common(a: Sequence[int], b: Sequence[int]) -> list[tuple[int, int]]:
    """Return the indices of a longest common subsequence in both, last first. It takes len(a) * len(b) bits."""
    places: dict[int, int] = {}
    for column, value in enumerate(b):
        places[value] = places.get(value, 0) | 1 << column
    whole = (1 << len(b)) - 1
    row, rows = whole, []
    for value in a:
        matches = row & places.get(value, 0)
        row = (row + matches | row - matches) & whole
        rows.append(row)
    found = []
    at, column = len(a), len(b)
    while at and column:
        if rows[at - 1] >> column - 1 & 1:
            column -= 1
            continue
        at -= 1
        if at and not rows[at - 1] >> column - 1 & 1:
            continue
        column -= 1
        found.append((at, column))
    return found
