"""The event word that EVENTINJ and EXITINTINFO share (APM 15.20, 15.7.2), and how two events combine.

7:0 vector   10:8 type   11 error code valid   31 valid   63:32 error code
"""

from enum import Enum, IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from .vectors import SOFTWARE_EXCEPTIONS, VECTORS, Class, Vector, mnemonic

VALID: Final = 1 << 31
ERROR_CODE_VALID: Final = 1 << 11


class EventType(IntEnum):
    """The type of an event, bits 10:8 of the event word; 1, 5, 6 and 7 are reserved."""

    INTR = 0
    """An external or virtual interrupt."""
    NMI = 2
    """A non-maskable interrupt."""
    EXCEPTION = 3
    """An exception; those of INT3, INTO and INT1 included."""
    SOFT = 4
    """A software interrupt: INT n, opcode CD only."""


# Plain ints: they are asked for at every event.
_EXCEPTION: Final = EventType.EXCEPTION.value
_SOFT: Final = EventType.SOFT.value


class Event(NamedTuple):
    """An event being delivered, or to be injected."""

    vector: int
    """0 to 255."""
    type: int
    """An EventType; a reserved one stays the int it is."""
    error_code: int | None = None
    """None: it has none."""

    def __str__(self) -> str:
        if self.type == EventType.EXCEPTION:
            text = mnemonic(self.vector)
        elif self.type == EventType.NMI:
            text = "NMI"
        elif self.type == EventType.INTR:
            text = f"interrupt {self.vector:#04x}"
        elif self.type == EventType.SOFT:
            text = f"INT {self.vector:#04x}"
        else:
            text = f"event of type {self.type}, vector {self.vector:#04x}"
        return text if self.error_code is None else f"{text}({self.error_code:#x})"


def is_software(event: Event) -> bool:
    """Return whether an instruction asked for the event: INT n, INT3 or INTO (APM 8.4.1, 8.7.4).

    Its gate is checked for DPL, its frame holds the RIP after the instruction, and the error code of what its delivery
    raises has EXT clear. If the delivery fails, RIP is still on the instruction, which executes again.
    """
    vector, kind, _ = event
    return kind == _SOFT or (kind == _EXCEPTION and bool(SOFTWARE_EXCEPTIONS >> vector & 1))


class Shutdown(Enum):
    """The type of `SHUTDOWN`."""

    SHUTDOWN = "shutdown"


SHUTDOWN: Final = Shutdown.SHUTDOWN
"""The answer of `combine` when no event is left to deliver: a triple fault."""

DOUBLE_FAULT: Final = Event(Vector.DF, EventType.EXCEPTION, 0)


@lru_cache(maxsize=1024)
def encode(event: Event) -> int:
    """Return the 64-bit word with V set."""
    vector, kind, error_code = event
    if vector >> 8 or kind >> 3:  # negative ones, too
        raise ValueError(f"an event word cannot hold vector {vector:#x} of type {kind}")
    word = VALID | kind << 8 | vector
    if error_code is None:
        return word
    if not 0 <= error_code <= 0xFFFF_FFFF:
        raise ValueError(f"the error code {error_code:#x} is wider than 32 bits")
    return word | ERROR_CODE_VALID | error_code << 32


@lru_cache(maxsize=1024)
def decode(word: int) -> Event | None:
    """Return the event in a 64-bit word, or None when V is clear."""
    if not word & VALID:
        return None
    return Event(word & 0xFF, word >> 8 & 7, word >> 32 if word & ERROR_CODE_VALID else None)


def combine(vectoring: Event | None, queued: Event) -> Event | Shutdown:
    """Return what becomes of `queued`, raised while `vectoring` was being delivered (APM 15.7.3).

    =============  ========  ============  ==========
    vectoring      queued
    -------------  ----------------------------------
    class          benign    contributory  page fault
    =============  ========  ============  ==========
    none, benign   queued    queued        queued
    contributory   queued    #DF           queued
    page fault     queued    #DF           #DF
    double fault   shutdown  shutdown      shutdown
    =============  ========  ============  ==========

    Interrupts, NMIs and INT n are benign when vectoring. Whatever is not an exception never combines.
    """
    if vectoring is None or vectoring.type != EventType.EXCEPTION or queued.type != EventType.EXCEPTION:
        return queued
    first, second = _class(vectoring.vector), _class(queued.vector)
    if first is Class.DOUBLE_FAULT:
        return SHUTDOWN
    if second is Class.CONTRIBUTORY and first in (Class.CONTRIBUTORY, Class.PAGE_FAULT):
        return DOUBLE_FAULT
    if second is Class.PAGE_FAULT and first is Class.PAGE_FAULT:
        return DOUBLE_FAULT
    return queued


def _class(vector: int) -> Class:
    return VECTORS[vector].cls if vector < len(VECTORS) else Class.BENIGN
