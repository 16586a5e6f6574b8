"""Damages a file: bytes, fields, blocks, its length; in text also numbers and strings."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

_NUMBER: Final = re.compile(rb"-?(?:0x)?[0-9a-f]{1,20}")
_STRING: Final = re.compile(rb'"[^"\n]*"')
_VALUES: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 40, (1 << 64) - 1)
_TEXTS: Final = (
    b"-1", b"1e400", b"Infinity", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"1e12", b"9" * 5000,
    b"0x" + b"f" * 17,
    b'"0x1f"', b'"\\u001b[31m"', b'"\x1b[2J"', b'"\\ud800"', b"\xff\xfe", b"[" * 3000, b'{"x":' * 3000, b"0.5", b"256",
    b"4294967296", b"18446744073709551616", b'"shutdown"', b"x" * 5000, b"\0", b"\n", b"\r\n", b"\x9b31m",
)  # fmt: skip
_BLOCK: Final = 64

Change = Callable[[random.Random, bytearray], None]


def _place(chance: random.Random, data: bytearray) -> int:
    # Most of what matters is at the start, or at the end.
    end = len(data)
    return min(chance.choice((chance.randrange(end + 1), chance.randrange(257), end - chance.randrange(257))), end) % (
        end + 1
    )


def _byte(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = _place(chance, data)
        data[at : at + 1] = bytes([chance.randrange(256)])


def _bit(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    if at < len(data):
        data[at] ^= 1 << chance.randrange(8)


def _field(chance: random.Random, data: bytearray) -> None:
    size = chance.choice((1, 2, 4, 8))
    at = _place(chance, data) // size * size
    value = chance.choice((*_VALUES, len(data), len(data) - 1)) + chance.choice((0, 0, 1, -1))
    data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[_place(chance, data) :]


def _remove(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    del data[at : at + chance.randrange(1, _BLOCK)]


def _repeat(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    data[at:at] = data[at : at + chance.randrange(1, _BLOCK)] * chance.choice((1, 2, 50))


def _move(chance: random.Random, data: bytearray) -> None:
    start, at, size = _place(chance, data), _place(chance, data), chance.randrange(1, _BLOCK)
    data[at : at + size] = data[start : start + size]


def _number(chance: random.Random, data: bytearray) -> None:
    _replace(chance, data, _NUMBER)


def _string(chance: random.Random, data: bytearray) -> None:
    _replace(chance, data, _STRING)


def _replace(chance: random.Random, data: bytearray, pattern: re.Pattern[bytes]) -> None:
    found = list(pattern.finditer(data))
    if found:
        start, end = chance.choice(found).span()
        other = chance.choice(found)
        data[start:end] = chance.choice((*_TEXTS, bytes(other[0]), str(chance.getrandbits(64)).encode()))


def _line(chance: random.Random, data: bytearray) -> None:
    lines = data.splitlines(keepends=True)
    if lines:
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines) * chance.choice((1, 1, 1, 30)))
        data[:] = b"".join(lines)


_BINARY: Final[tuple[Change, ...]] = (_byte, _bit, _field, _field, _field, _cut, _remove, _repeat, _move)
_TEXT: Final[tuple[Change, ...]] = (
    _byte,
    _bit,
    _cut,
    _remove,
    _repeat,
    _move,
    _number,
    _number,
    _string,
    _string,
    _line,
)
_BINARY_KINDS: Final = frozenset({"images", "symbols", "jsonl.zst", "arrow", "parquet"})


def mutate(kind: str, originals: Sequence[bytes], name: str) -> bytes:
    """Return a damaged file; the same for the same name."""
    chance = random.Random(name)
    data = bytearray(chance.choice(originals))
    changes = _BINARY if kind in _BINARY_KINDS else _TEXT
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        chance.choice(changes)(chance, data)
    return bytes(data)
