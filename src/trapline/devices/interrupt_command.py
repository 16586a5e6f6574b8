"""What travels between local APICs, and the interrupt command register that sends it (APM vol. 2, 16.5)."""

from typing import Final, NamedTuple

FIXED: Final = 0
LOWEST_PRIORITY: Final = 1
NMI: Final = 4
INIT: Final = 5
STARTUP: Final = 6
EXTINT: Final = 7

SELF: Final = 1
"""The destination shorthand for the sender alone."""
ALL: Final = 2
"""The destination shorthand for all CPUs, the sender among them."""
OTHERS: Final = 3
"""The destination shorthand for all but the sender."""
BROADCAST: Final = 0xFF
"""A physical destination: every local APIC."""
_FLAT: Final = 0xF
_LOGICAL: Final = 1 << 11
_TRIGGERS: Final = 0xC000
"""Level and trigger mode."""
_DEASSERT: Final = 0x8000
"""Of those: a level that is taken back."""


class Message(NamedTuple):
    """What travels between APICs."""

    vector: int
    mode: int
    destination: int
    logical: bool
    level: bool

    def is_for(self, apic: int, logical: int, model: int) -> bool:
        """Say whether the local APIC with this id, logical destination and destination format takes it."""
        destination = self.destination
        if not self.logical:
            return destination in (apic, BROADCAST)
        if model == _FLAT:
            return bool(destination & logical)
        cluster = destination >> 4
        return cluster in (logical >> 4, 0xF) and bool(destination & logical & 0xF)


class Command(NamedTuple):
    """A value of the interrupt command register."""

    message: Message
    shorthand: int
    """0: the destination is in the message."""
    deasserts: bool
    """Of an INIT: it only sets arbitration ids."""

    @property
    def starts(self) -> bool:
        """Whether it resets or starts a CPU."""
        return self.message.mode in (INIT, STARTUP) and not self.deasserts


def decode(icr: int) -> Command:
    """Return what a value of the register, 64 bits, asks for."""
    vector, mode, shorthand = icr & 0xFF, icr >> 8 & 7, icr >> 18 & 3
    destination = icr >> 56 if shorthand == 0 else BROADCAST
    logical = shorthand == 0 and bool(icr & _LOGICAL)
    message = Message(vector, mode, destination, logical=logical, level=False)
    return Command(message, shorthand, mode == INIT and icr & _TRIGGERS == _DEASSERT)
