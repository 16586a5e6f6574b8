"""What a session with gdb is about: the target, and what the client has set and was told."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from trapline.debugger.target import Target

from . import target_xml
from .monitor import Monitor
from .packets import LARGEST, escape
from .points import Points

OK: Final = b"OK"
BAD: Final = b"E01"
UNSUPPORTED: Final = b""


@dataclass
class State:
    """The state of a session."""

    target: Target
    monitor: Monitor
    points: Points
    symbols: int | None
    """The width of the addresses in the guest's symbols."""
    layout: target_xml.Layout
    """The description that gdb has read last."""

    @classmethod
    def of(cls, target: Target) -> "State":
        """Return the state of a new session."""
        symbols = target_xml.symbols_bits(target.machine.session.names)
        layout = target_xml.layout(target_xml.fitting(target.cpu.bits, symbols))
        return cls(target, Monitor(target), Points(target.machine), symbols, layout)

    @property
    def fitting(self) -> int:
        """The description that fits now: 16, 32 or 64."""
        return target_xml.fitting(self.target.cpu.bits, self.symbols)

    @property
    def is_stale(self) -> bool:
        """Whether that is another than gdb has read."""
        return self.layout.bits != self.fitting


Query: TypeAlias = Callable[[State, str], bytes]
"""Answers a packet; the text is what follows its name. Raises ValueError for what is not understood."""
Queries: TypeAlias = Mapping[str, Query]


def numbers(text: str, count: int) -> list[int]:
    """Read hexadecimal numbers of up to 64 bits, separated by commas."""
    found = [int(part, 16) for part in text.split(",")]
    if len(found) != count or any(not 0 <= number < 1 << 64 for number in found):
        raise ValueError("these are not so many numbers of 64 bits")
    return found


def part_of(text: str) -> tuple[str, int, int]:
    """Return annex, offset and length of a qXfer packet."""
    annex, _, place = text.rpartition(":")
    offset, length = numbers(place, 2)
    return annex, offset, min(length, LARGEST // 2)


def sliced(data: bytes, offset: int, length: int) -> bytes:
    """Return the answer to a qXfer packet."""
    part = data[offset : offset + length]
    return (b"m" if offset + length < len(data) else b"l") + escape(part)
