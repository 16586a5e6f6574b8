"""An axis as text for a page: counts in as many bins as there is room for, compressed."""

import base64
import zlib
from typing import Final, NamedTuple

import numpy as np

from .timeline import Axis

_WIDTH: Final = 4
"""Bytes of a count."""


class PackedAxis(NamedTuple):
    """An axis in at most a number of characters.

    `data` is zlib in base64. Unpacked it has, for each of `vectors`, four planes of `bins` bytes: of each count the low
    byte, then the next ones.
    """

    axis: Axis
    vectors: tuple[int, ...]
    bins: int
    data: str


def pack(axis: Axis, vectors: tuple[int, ...], room: int) -> PackedAxis:
    """Return the counts of some vectors, in bins that are wide enough for `room` characters."""
    while True:
        planes = [axis.counts[v].astype("<u4").view(np.uint8).reshape(-1, _WIDTH).T.tobytes() for v in vectors]
        data = base64.b64encode(zlib.compress(b"".join(planes), 6)).decode("ascii")
        bins = len(next(iter(axis.counts.values())))
        if len(data) <= room or bins <= 1:
            return PackedAxis(axis, vectors, bins, data)
        axis = axis.halved()
