"""The keyboard controller (8042) without a keyboard: its own commands, the A20 gate and the reset line.

A command takes effect at once, so the input buffer is never full. The output buffer holds one byte: an answer that
was not read is replaced by the next.
"""

from collections.abc import Callable
from typing import Final

from .power import Power

DATA: Final = 0x60
COMMAND: Final = 0x64

SELF_TESTED: Final = 0x1C
"""Status: not locked, the last write was a command, the self test passed."""
MODE: Final = 0x61
"""Command byte that firmware leaves: translation, mouse off, interrupt 1 on."""

INTERRUPT: Final = 0x01
DISABLED: Final = 0x10

WRITE_MODE: Final = 0x60
WRITE_OUTPUT_PORT: Final = 0xD1
WRITE_OUTPUT_BUFFER: Final = 0xD2

PULSE: Final = 0xF0
"""Commands that pulse lines of the output port, among them the reset line, where their bit 0 is clear."""
PULSE_MASK: Final = 0xF1

ANSWERS: Final = {0xA9: 0x00, 0xAA: 0x55, 0xAB: 0x00, 0xC0: 0x80}
"""Tests of the mouse port, the controller and the keyboard port, and the input port."""
MODE_CHANGES: Final = {0xA7: (0x20, 0x00), 0xA8: (0x00, 0x20), 0xAD: (0x10, 0x00), 0xAE: (0x00, 0x10)}
"""Bits to set and to clear: mouse off and on, keyboard off and on."""


class KeyboardController:
    """Ports 0x60 and 0x64."""

    def __init__(self, power: Power, irq: Callable[[bool], None], missing: Callable[[], None]) -> None:
        """`irq` is IRQ 1; `missing` is called when the guest speaks to a keyboard."""
        self._power, self._irq, self._missing = power, irq, missing
        self.reset()

    def reset(self) -> None:
        """Be as firmware leaves it."""
        self._mode = MODE
        self._output = 0
        self._full = False
        self._awaited = 0
        self._update()

    def read(self, port: int, size: int) -> int:
        """Read the status or the output buffer, which keeps its last byte."""
        if port == COMMAND:
            return SELF_TESTED | self._full
        self._full = False
        self._update()
        return self._output

    def write(self, port: int, size: int, value: int) -> None:
        """Take a command, or the data of the one before; what is meant for the keyboard gets no answer."""
        if port == COMMAND:
            self._awaited = value if value in (WRITE_MODE, WRITE_OUTPUT_PORT, WRITE_OUTPUT_BUFFER) else 0
            self._command(value)
            return
        awaited, self._awaited = self._awaited, 0
        if awaited == WRITE_MODE:
            self._mode = value
            self._update()
        elif awaited == WRITE_OUTPUT_PORT:
            self._power.a20 = bool(value & 2)
            if not value & 1:
                self._power.reset("the keyboard controller's output port")
        elif awaited == WRITE_OUTPUT_BUFFER:
            self._answer(value)
        else:
            self._missing()

    def _command(self, value: int) -> None:
        if value in ANSWERS:
            self._answer(ANSWERS[value])
        elif value in MODE_CHANGES:
            on, off = MODE_CHANGES[value]
            self._mode = (self._mode | on) & ~off
        elif value == 0x20:
            self._answer(self._mode)
        elif value == 0xD0:
            self._answer(0xCD | self._power.a20 << 1)
        elif value in (0xDD, 0xDF):
            self._power.a20 = value == 0xDF
        elif value & PULSE_MASK == PULSE:
            self._power.reset("the keyboard controller's reset command")

    def _answer(self, value: int) -> None:
        self._output = value
        if not self._full:
            self._full = True
            self._update()

    def _update(self) -> None:
        self._irq(self._full and self._mode & (INTERRUPT | DISABLED) == INTERRUPT)
