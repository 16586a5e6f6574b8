"""How messages follow each other in a stream: a header with Content-Length, an empty line, and that many bytes."""

import re
from collections.abc import Iterator
from typing import Final

from trapline.errors import UsageError

_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"content-length:[ \t]*([0-9]{1,18})[ \t]*", re.IGNORECASE)
HEADER: Final = 4096
"""Bytes of the longest header that is read."""
LONGEST: Final = 16 << 20
"""Bytes of the longest message that is read."""


class Incoming:
    """Splits what a client sends into the bodies of messages."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._length: int | None = None

    @property
    def is_between(self) -> bool:
        """Whether nothing of a next message has come."""
        return not self._data and self._length is None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes, and yield each body that is complete.

        Raises UsageError for what is not a header and for a message that is too long: the next one cannot be found.
        """
        self._data += data
        while True:
            if self._length is None and not self._read_header():
                return
            length = self._length
            if length is None or len(self._data) < length:
                return
            body = bytes(self._data[:length])
            del self._data[:length]
            self._length = None
            yield body

    def _read_header(self) -> bool:
        """Read a header; False: it is not complete."""
        end = self._data.find(_END, 0, HEADER + len(_END))
        if end < 0:
            if len(self._data) > HEADER:
                raise UsageError(f"the client sent {HEADER:,} bytes without the end of a header: not a message")
            return False
        lengths = [found for line in self._data[:end].split(b"\r\n") if (found := _LENGTH.fullmatch(line))]
        if len(lengths) != 1:
            raise UsageError(f"the client sent a header without a Content-Length: {bytes(self._data[:end])[:60]!r}")
        length = int(lengths[0][1])
        if length > LONGEST:
            raise UsageError(f"the client announced a message of {length:,} bytes: more than {LONGEST:,} are not read")
        del self._data[: end + len(_END)]
        self._length = length
        return True


def framed(body: bytes) -> bytes:
    """Return a message with its header."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
