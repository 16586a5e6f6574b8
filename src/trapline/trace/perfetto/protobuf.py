"""Many messages of Protocol Buffers at once.

A message is a matrix of bytes with a row for each, or with one row for all. Integers have a fixed number of bytes, with
leading zeros: a varint may be longer than it needs (https://protobuf.dev/programming-guides/encoding).
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Part: TypeAlias = NDArray[np.uint8]
_VARINT, _BYTES = 0, 2
"""Types of fields on the wire."""


def number(field: int, value: int) -> Part:
    """Return an integer that all messages have."""
    return _constant(_varint(field << 3 | _VARINT) + _varint(value))


def numbers(field: int, values: NDArray[np.integer[Any]], width: int) -> list[Part]:
    """Return an integer of each message, of up to 7 * `width` bits."""
    left = values.astype(np.uint64)
    rows = np.empty((len(left), width), np.uint8)
    for place in range(width):
        rows[:, place] = (left & np.uint64(0x7F)).astype(np.uint8) | (0x80 if place < width - 1 else 0)
        left >>= np.uint64(7)
    return [_constant(_varint(field << 3 | _VARINT)), rows]


def text(field: int, value: str) -> Part:
    """Return a string that all messages have."""
    data = value.encode(errors="replace")
    return _constant(_varint(field << 3 | _BYTES) + _varint(len(data)) + data)


def message(field: int, parts: Iterable[Part]) -> list[Part]:
    """Return a message in a message."""
    found = list(parts)
    size = sum(part.shape[1] for part in found)
    return [_constant(_varint(field << 3 | _BYTES) + _varint(size)), *found]


def joined(parts: Iterable[Part], count: int = 1) -> bytes:
    """Return so many messages one after another."""
    return np.hstack([np.broadcast_to(part, (count, part.shape[1])) for part in parts]).tobytes()


def _constant(data: bytes) -> Part:
    return np.frombuffer(data, np.uint8)[None, :]


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
