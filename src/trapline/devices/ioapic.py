"""The I/O APIC: 24 inputs, each with a redirection entry (Intel 82093AA data sheet; version 0x20 adds EOI).

IRQ 0 arrives at input 2, every other IRQ at the input of its number.
"""

from collections.abc import Callable
from typing import Final

from .interrupt_command import Message

BASE: Final = 0xFEC00000
INPUTS: Final = 24
VERSION: Final = 0x20

SELECT: Final = 0x00
WINDOW: Final = 0x10
EOI: Final = 0x40

REMOTE_IRR: Final = 1 << 14
LEVEL: Final = 1 << 15
MASKED: Final = 1 << 16
WRITABLE: Final = 0xFF00_0000_0001_AFFF
"""A redirection entry without its delivery status and remote IRR."""


class IoApic:
    """Turns levels of its inputs into messages to the local APIC."""

    def __init__(self, send: Callable[[Message], object]) -> None:
        """Send messages by `send`."""
        self._send = send
        self._lines = 0
        self.reset()

    def reset(self) -> None:
        """Mask everything."""
        self._id = self._selected = 0
        self._entries = [MASKED] * INPUTS

    def masked(self, pin: int) -> bool:
        """Return whether an input is masked."""
        return bool(self._entries[pin] & MASKED)

    def set_line(self, pin: int, level: bool) -> None:
        """Drive an input; an edge into a masked one is lost, as the manual says."""
        bit, entry = 1 << pin, self._entries[pin]
        rising = level and not self._lines & bit
        self._lines = self._lines | bit if level else self._lines & ~bit
        if entry & LEVEL:
            self._service(pin)
        elif rising and not entry & MASKED:
            self._deliver(entry)

    def eoi(self, vector: int) -> None:
        """End the level triggered interrupt of `vector`; it comes again if its input is still high."""
        for pin, entry in enumerate(self._entries):
            if entry & 0xFF == vector and entry & LEVEL:
                self._entries[pin] = entry & ~REMOTE_IRR
                self._service(pin)

    def read(self, offset: int) -> int:
        """Read 32 bits of the register page."""
        if offset == SELECT:
            return self._selected
        if offset != WINDOW:
            return 0
        if self._selected in (0, 2):
            return self._id << 24
        if self._selected == 1:
            return (INPUTS - 1) << 16 | VERSION
        pin, high = divmod(self._selected - 0x10, 2)
        return self._entries[pin] >> 32 * high & 0xFFFFFFFF if 0 <= pin < INPUTS else 0

    def write(self, offset: int, value: int) -> None:
        """Write 32 bits of the register page."""
        if offset == SELECT:
            self._selected = value & 0xFF
        elif offset == EOI:
            self.eoi(value & 0xFF)
        elif offset == WINDOW and self._selected == 0:
            self._id = value >> 24 & 0x0F
        elif offset == WINDOW and 0x10 <= self._selected < 0x10 + 2 * INPUTS:
            self._write_entry(*divmod(self._selected - 0x10, 2), value)

    def _write_entry(self, pin: int, high: int, value: int) -> None:
        old = self._entries[pin]
        written = (old & 0xFFFFFFFF | value << 32) if high else (old & ~0xFFFFFFFF | value)
        entry = written & WRITABLE
        if entry & LEVEL:
            entry |= old & REMOTE_IRR  # an edge triggered entry has none: guests clear it by making it one
        self._entries[pin] = entry
        self._service(pin)

    def _service(self, pin: int) -> None:
        """Send a level triggered interrupt whose input is high and which is not in service."""
        entry = self._entries[pin]
        if self._lines >> pin & 1 and entry & LEVEL and not entry & (MASKED | REMOTE_IRR):
            self._entries[pin] = entry | REMOTE_IRR
            self._deliver(entry)

    def _deliver(self, entry: int) -> None:
        self._send(
            Message(
                vector=entry & 0xFF,
                mode=entry >> 8 & 7,
                destination=entry >> 56,
                logical=bool(entry & 0x800),
                level=bool(entry & LEVEL),
            )
        )
