"""Reads the numbers and strings of DWARF from bytes, one after the other (DWARF 5, 7.6)."""

from typing import Final

_LONGEST: Final = 4096
"""Bytes of a string."""
_LEB: Final = 10
"""Bytes of a LEB128 of 64 bits."""


class Damaged(Exception):
    """The data ends in the middle of a value, or is not what it should be."""


class TooMuch(Exception):
    """The file asks for more work than its size explains."""


class Cursor:
    """A place in bytes; every read moves it, and raises Damaged at the end."""

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else min(end, len(data))

    def uint(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes."""
        return int.from_bytes(self.data[self.at : self.skip(size)], "little")

    def skip(self, size: int) -> int:
        """Move on by `size` bytes; return the new place."""
        at = self.at + size
        if at > self.end:
            raise Damaged
        self.at = at
        return at

    def uleb(self) -> int:
        """Read an unsigned LEB128."""
        value = shift = 0
        for _ in range(_LEB):
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise Damaged

    def sleb(self) -> int:
        """Read a signed LEB128."""
        start = self.at
        value = self.uleb()
        bits = 7 * (self.at - start)
        return value - (1 << bits) if value >> bits - 1 else value

    def string(self) -> bytes:
        """Read a string that ends with a zero."""
        end = self.data.find(b"\0", self.at, min(self.end, self.at + _LONGEST))
        if end < 0:
            raise Damaged
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def length(self) -> tuple[int, int]:
        """Read the length that a unit starts with; return it, and the size of an offset: 4 or 8 bytes."""
        value = self.uint(4)
        return (self.uint(8), 8) if value == 0xFFFF_FFFF else (value, 4)


class Steps:
    """Bounds the work on one file: a damaged one can ask for more than linear work."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> None:
        """Count a step. Raises TooMuch after the last."""
        self.left -= 1
        if self.left < 0:
            raise TooMuch
