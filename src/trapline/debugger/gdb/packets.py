"""Packets of GDB's remote serial protocol: bytes in, bytes out (GDB manual, "Overview" of the protocol).

A packet is `$payload#checksum`. In a payload `}` escapes the next byte, which was exclusive-ored with 0x20.
"""

import re
from enum import Enum
from typing import Final, TypeAlias

LARGEST: Final = 0x4000
"""The longest payload that is taken, escapes included; `qSupported` tells the client."""
_ESCAPE: Final = 0x7D
_FLIP: Final = 0x20
_SPECIAL: Final = re.compile(rb"[#$*}]")
_ESCAPED: Final = re.compile(rb"}(.)", re.DOTALL)


class Mark(Enum):
    """What arrives outside of packets."""

    ACK = "+"
    NACK = "-"
    """The last packet is to be sent again."""
    INTERRUPT = "Ctrl-C"
    """The guest is to be stopped."""
    DAMAGED = "damaged"
    """A packet with a wrong checksum, or one that is too long."""


Received: TypeAlias = bytes | Mark
"""The payload of a packet, or a mark."""

_MARKS: Final = {ord("+"): Mark.ACK, ord("-"): Mark.NACK, 3: Mark.INTERRUPT}


def encode(payload: bytes) -> bytes:
    """Return the packet of a payload that needs no escapes."""
    return b"$%b#%02x" % (payload, sum(payload) & 0xFF)


def escape(data: bytes) -> bytes:
    """Return binary data as a payload has it."""
    return _SPECIAL.sub(lambda match: bytes((_ESCAPE, match[0][0] ^ _FLIP)), data)


def unescape(data: bytes) -> bytes:
    """Return the binary data of a payload."""
    return _ESCAPED.sub(lambda match: bytes((match[1][0] ^ _FLIP,)), data)


class Decoder:
    """Finds packets and marks in what arrives, however it is cut."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Received]:
        """Take bytes that arrived; return what is complete with them. Bytes between packets are ignored."""
        rest, found = self._rest, list[Received]()
        rest += data
        while rest:
            if rest[0] != ord("$"):
                mark = _MARKS.get(rest[0])
                if mark is not None:
                    found.append(mark)
                    del rest[0]
                else:
                    self._skip()
                continue
            end = rest.find(b"#", 1, LARGEST + 2)
            if end < 0:
                if len(rest) < LARGEST + 2:
                    break
                found.append(Mark.DAMAGED)
                del rest[0]
            elif len(rest) < end + 3:
                break
            else:
                found.append(_checked(bytes(rest[1:end]), bytes(rest[end + 1 : end + 3])))
                del rest[: end + 3]
        return found

    def _skip(self) -> None:
        """Drop what precedes the next packet or mark."""
        rest = self._rest
        for place, byte in enumerate(rest):
            if byte == ord("$") or byte in _MARKS:
                del rest[:place]
                return
        rest.clear()


def _checked(payload: bytes, checksum: bytes) -> Received:
    try:
        return payload if int(checksum, 16) == sum(payload) & 0xFF else Mark.DAMAGED
    except ValueError:
        return Mark.DAMAGED
