"""Values of rows, gathered for columns: those of some rows at a time, while a processor's cache has them."""

from array import array
from binascii import unhexlify
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_DIGITS: Final = 16
_LOWER: Final = 0x20
"""In ASCII: set in digits and in small letters, not in capitals."""
_SPACE: Final = ord(" ")
_PREFIX: Final = b"0x"


class Values(Protocol):
    """Values of one column; None: a record lacks it."""

    def add(self, values: Sequence[Any], /) -> None:
        """Take those of some records, one at least. Raises ValueError or OverflowError for one that cannot be."""

    def array(self) -> pa.Array:
        """Return all of them. Raises ValueError for one that cannot be."""


class Numbers:
    """Numbers of at most 64 bits."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind: Final = kind
        self._missing = _Missing()
        self._values = array("Q")

    def add(self, values: Sequence[int | None], /) -> None:
        """See `Values`."""
        try:
            self._values += array("Q", values)  # type: ignore[arg-type]  # None is rare
        except TypeError:
            self._values += array("Q", self._missing.filled(values, 0, len(self._values)))

    def array(self) -> pa.Array:
        """See `Values`."""
        return pa.array(np.frombuffer(self._values, np.uint64), mask=self._missing.mask(len(self._values))).cast(
            self._kind
        )


class Hexadecimals:
    """Numbers of 64 bits as text: `0x` and 1 to 16 digits."""

    def __init__(self) -> None:
        self._missing = _Missing()
        self._texts: list[str] = []
        self._size = 0

    def add(self, values: Sequence[str | None], /) -> None:
        """See `Values`."""
        try:
            text = " ".join(values)  # type: ignore[arg-type]  # None is rare
        except TypeError:
            text = " ".join(self._missing.filled(values, "0x0", self._size))
        self._texts.append(text)
        self._size += len(values)

    def array(self) -> pa.Array:
        """See `Values`."""
        mask = self._missing.mask(self._size)
        if not self._size or (mask is not None and mask.all()):
            return pa.nulls(self._size, pa.uint64())
        return pa.array(_numbers(" ".join(self._texts).encode(), self._size), mask=mask)


class Flags:
    """True or false."""

    def __init__(self) -> None:
        self._values: list[bool | None] = []

    def add(self, values: Sequence[bool | None], /) -> None:
        """See `Values`."""
        self._values += values

    def array(self) -> pa.Array:
        """See `Values`."""
        return pa.array(self._values, pa.bool_())


class Texts:
    """Texts, most of them often."""

    def __init__(self) -> None:
        self._codes: list[int] = []
        self._table = _Table()

    def add(self, values: Sequence[str | None], /) -> None:
        """See `Values`."""
        self._codes += map(self._table.__getitem__, values)

    def array(self) -> pa.Array:
        """Return a dictionary; see `Values`."""
        codes = np.array(self._codes, np.int32)
        texts = list(self._table)
        mask = None
        if None in self._table:
            missing = self._table[None]
            mask = codes == missing
            codes = codes - (codes > missing)
            del texts[missing]
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=mask), pa.array(texts, pa.string()))


class _Table(dict[str | None, int]):
    """Numbers texts in the order in which they are first asked for."""

    def __missing__(self, text: str | None) -> int:
        self[text] = number = len(self)
        return number


class _Missing:
    """Which records lack a value."""

    def __init__(self) -> None:
        self._parts: list[tuple[slice, NDArray[np.bool_] | bool]] = []

    def filled(self, values: Sequence[Any], other: object, before: int) -> list[Any]:
        """Note which of the next values are None, and return them with `other` there; `before` came before them."""
        place = slice(before, before + len(values))
        if values.count(None) == len(values):
            self._parts.append((place, True))
            return [other] * len(values)
        self._parts.append((place, np.array([value is None for value in values], np.bool_)))
        return [other if value is None else value for value in values]

    def mask(self, size: int) -> NDArray[np.bool_] | None:
        """Return where there is none; None: nowhere."""
        if not self._parts:
            return None
        mask = np.zeros(size, np.bool_)
        for place, part in self._parts:
            mask[place] = part
        return mask


def _numbers(text: bytes, count: int) -> NDArray[np.uint64]:
    """Return the numbers in a text, in which a space is between two. Raises ValueError where they have another form."""
    spaces = np.flatnonzero(np.frombuffer(text, np.uint8) == _SPACE)
    text = text.replace(b" ", b"")
    offsets = np.empty(len(spaces) + 2, np.int32)
    offsets[0], offsets[1:-1], offsets[-1] = 0, spaces - np.arange(len(spaces)), len(text)
    starts, lengths = offsets[:-1], np.diff(offsets)
    if len(starts) != count or lengths.min() <= len(_PREFIX) or lengths.max() > len(_PREFIX) + _DIGITS:
        raise ValueError("not numbers of 64 bits")
    characters = np.frombuffer(text, np.uint8)
    if any((characters[starts + place] != character).any() for place, character in enumerate(_PREFIX)):
        raise ValueError("not numbers in hexadecimal")
    if not np.bitwise_and.reduce(characters) & _LOWER:
        raise ValueError("not in small letters")
    texts = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))
    digits = pc.ascii_lpad(pc.binary_replace_slice(texts, 0, len(_PREFIX), ""), _DIGITS, "0").buffers()[2]
    found: NDArray[np.uint64] = np.frombuffer(unhexlify(digits), ">u8").astype(np.uint64)
    return found
