"""Two 8259A interrupt controllers, the second on line 2 of the first, as in every PC (Intel 8259A data sheet).

Lines are edge triggered unless the PC's edge/level registers (ports 0x4D0, 0x4D1) say otherwise; an edge stays in IRR
until it is acknowledged, also when the line falls (as in QEMU, unlike the chip).
"""

from collections.abc import Callable
from typing import Final

from .chips import PicState

MASTER: Final = 0x20
SLAVE: Final = 0xA0
ELCR: Final = 0x4D0
CASCADE: Final = 2
"""The master's line that the slave drives."""
SPURIOUS: Final = 7
"""The line whose vector is given when there is nothing to acknowledge."""


class Pic:
    """One 8259A: registers are bit masks of its eight lines."""

    def __init__(self, elcr_mask: int, cascaded: int = 0) -> None:
        """Let the guest make the lines in `elcr_mask` level triggered; `cascaded` lines come from a slave."""
        self._elcr_mask, self._cascaded = elcr_mask, cascaded
        self._lines = 0
        self._poll = False
        self.reset(base=0, imr=0)

    def reset(self, *, base: int, imr: int) -> None:
        """Be as after initialization by firmware: vectors from `base`, lines in `imr` masked."""
        self.elcr = 0
        self._icw1(0x11)
        self._expected = 0
        self.base, self.imr = base, imr

    def set_line(self, line: int, level: bool) -> None:
        """Drive an input."""
        bit = 1 << line
        if level:
            if self.elcr & bit or not self._lines & bit:
                self.irr |= bit
            self._lines |= bit
        else:
            self._lines &= ~bit
            if self.elcr & bit:
                self.irr &= ~bit

    def request(self) -> int:
        """Return the line to be served now, or -1."""
        wanted = self.irr & ~self.imr
        if not wanted:
            return -1
        priority = self._priority(wanted)
        serving = self.isr
        if self._special_mask:
            serving &= ~self.imr
        if self._fully_nested:
            serving &= ~self._cascaded
        if serving and self._priority(serving) <= priority:
            return -1
        return priority + self._first & 7

    def acknowledge(self, line: int) -> None:
        """Take `line` into service (INTA)."""
        bit = 1 << line
        if not self.elcr & bit:
            self.irr &= ~bit
        if not self._auto_eoi:
            self.isr |= bit
        elif self._rotate_auto:
            self._first = line + 1 & 7

    def read(self, register: int) -> int:
        """Read port `register`, 0 or 1."""
        if self._poll:
            self._poll = False
            line = self.request()
            if line < 0:
                return 0
            self.acknowledge(line)
            return 0x80 | line
        if register:
            return self.imr
        return self.isr if self._read_isr else self.irr

    def write(self, register: int, value: int) -> None:
        """Write port `register`, 0 or 1."""
        if register:
            self._write_data(value)
        elif value & 0x10:
            self._icw1(value)
        elif value & 0x08:
            self._ocw3(value)
        else:
            self._ocw2(value)

    def write_elcr(self, value: int) -> None:
        """Choose the level triggered lines."""
        self.elcr = value & self._elcr_mask

    def _priority(self, mask: int) -> int:
        """Return how far the first line of a mask that is not 0 is from the highest priority."""
        turned = mask >> self._first | mask << 8 - self._first
        return (turned & -turned).bit_length() - 1

    def _icw1(self, value: int) -> None:
        self.irr = self._lines & self.elcr
        self.isr = self.imr = self.base = 0
        self._first = 0
        self._poll = False
        self._read_isr: bool = False
        self._special_mask: bool = False
        self._fully_nested: bool = False
        self._auto_eoi: bool = False
        self._rotate_auto: bool = False
        self._single = bool(value & 2)
        self._icw4 = bool(value & 1)
        self._expected = 2

    def _write_data(self, value: int) -> None:
        if self._expected == 0:
            self.imr = value
        elif self._expected == 2:
            self.base = value & 0xF8
            self._expected = 3 if not self._single else 4 * self._icw4
        elif self._expected == 3:  # the wiring, which is what it is
            self._expected = 4 * self._icw4
        else:
            self._fully_nested = bool(value & 0x10)
            self._auto_eoi = bool(value & 0x02)
            self._expected = 0

    def _ocw2(self, value: int) -> None:
        command, line = value >> 5, value & 7
        if command in (0, 4):
            self._rotate_auto = command == 4
        elif command in (1, 5):
            if self.isr:
                line = self._priority(self.isr) + self._first & 7
                self._end(line, rotate=command == 5)
        elif command in (3, 7):
            self._end(line, rotate=command == 7)
        elif command == 6:
            self._first = line + 1 & 7

    def _end(self, line: int, *, rotate: bool) -> None:
        self.isr &= ~(1 << line)
        if rotate:
            self._first = line + 1 & 7

    def _ocw3(self, value: int) -> None:
        if value & 0x04:
            self._poll = True
        if value & 0x02:
            self._read_isr = bool(value & 1)
        if value & 0x40:
            self._special_mask = bool(value & 0x20)


class PicPair:
    """The PC's sixteen lines and one output."""

    def __init__(self, int_out: Callable[[bool], None]) -> None:
        """Drive the CPU's interrupt input, or LINT0 in front of it, through `int_out`."""
        self._int_out = int_out
        self._output = False
        self._master, self._slave = Pic(0xF8, cascaded=1 << CASCADE), Pic(0xDE)
        self._chips = {MASTER: self._master, SLAVE: self._slave}
        self.reset()

    def reset(self) -> None:
        """Be as firmware leaves it: vectors 8-15 and 0x70-0x77; timer, keyboard, floppy, clock and disks unmasked."""
        self._master.reset(base=0x08, imr=0xB8)
        self._slave.reset(base=0x70, imr=0x8E)
        self._update()

    def set_line(self, irq: int, level: bool) -> None:
        """Drive IRQ 0-15, but for 2, which belongs to the slave."""
        if irq & 8:
            self._slave.set_line(irq & 7, level)
        elif irq != CASCADE:
            self._master.set_line(irq, level)
        self._update()

    def masked(self, irq: int) -> bool:
        """Return whether a master's line is masked."""
        return bool(self._master.imr >> irq & 1)

    def state(self) -> tuple[PicState, PicState]:
        """Return the registers of the master and of the slave."""
        master, slave = (PicState(chip.irr, chip.imr, chip.isr, chip.base) for chip in (self._master, self._slave))
        return master, slave

    def vector(self) -> int:
        """Return what `acknowledge` would."""
        line = self._master.request()
        if line == CASCADE:
            line = self._slave.request()
            return self._slave.base + (line if line >= 0 else SPURIOUS)
        return self._master.base + (line if line >= 0 else SPURIOUS)

    def acknowledge(self) -> int:
        """Answer INTA with a vector and take its line into service."""
        vector = self.vector()
        line = self._master.request()
        if line >= 0:
            self._master.acknowledge(line)
        if line == CASCADE:
            line = self._slave.request()
            if line >= 0:
                self._slave.acknowledge(line)
            self._master.set_line(CASCADE, level=False)  # the slave's output falls with INTA: a new edge may follow
        self._update()
        return vector

    def read(self, port: int, size: int) -> int:
        """Read a register of one of the two."""
        value = self._chips[port & ~1].read(port & 1)
        self._update()  # a poll acknowledges
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """Write a register of one of the two."""
        self._chips[port & ~1].write(port & 1, value)
        self._update()

    def read_elcr(self, port: int, size: int) -> int:
        """Read an edge/level register."""
        return self._slave.elcr if port & 1 else self._master.elcr

    def write_elcr(self, port: int, size: int, value: int) -> None:
        """Write an edge/level register."""
        (self._slave if port & 1 else self._master).write_elcr(value)

    def _update(self) -> None:
        self._master.set_line(CASCADE, self._slave.request() >= 0)
        output = self._master.request() >= 0
        if output != self._output:
            self._output = output
            self._int_out(output)
