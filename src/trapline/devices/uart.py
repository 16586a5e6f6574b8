"""A 16550A serial port (National Semiconductor PC16550D data sheet).

A byte that is written is sent at once and a byte that is received is there at once, so the FIFO never waits for its
trigger level: what lies below it is reported as a character timeout. The interrupt does not wait for MCR.OUT2 (as in
QEMU, unlike a PC).
"""

from collections import deque
from collections.abc import Callable
from typing import Final

COM1: Final = 0x3F8
FIFO: Final = 16
TRIGGER_LEVELS: Final = (1, 4, 8, 14)
"""By FCR bits 7-6."""

DLAB: Final = 0x80
LOOP: Final = 0x10

LSR_DR: Final = 0x01
LSR_OE: Final = 0x02
LSR_IDLE: Final = 0x60
"""THR and shift register empty."""

MSR_CONNECTED: Final = 0xB0
"""DCD, DSR and CTS: the other end is ready, always: the modem status interrupt is never raised."""

IIR_NONE: Final = 0x01
IIR_THRE: Final = 0x02
IIR_DATA: Final = 0x04
IIR_LINE: Final = 0x06
IIR_TIMEOUT: Final = 0x0C


class Uart:
    """One port. Bytes that have no room yet wait on the host's side and are never lost."""

    def __init__(self, output: Callable[[bytes], object], irq: Callable[[bool], None]) -> None:
        """Send to `output`; `irq` is the interrupt line."""
        self._output, self._irq = output, irq
        self._waiting: deque[int] = deque()
        self._level = False
        self.reset()

    def reset(self) -> None:
        """Be as after the chip's reset; what waits on the host's side stays."""
        self._ier = self._fcr = self._lcr = self._scr = 0
        self._mcr = 0x08
        self._divisor = 12
        self._fifo: deque[int] = deque()
        self._last = 0
        self._overrun = self._thr_emptied = False
        self._fill()
        self._update()

    def receive(self, data: bytes) -> None:
        """Take bytes from the other side."""
        self._waiting += data
        self._fill()
        self._update()

    def read(self, port: int, size: int) -> int:
        """Read one of the eight registers."""
        register = port & 7
        if register < 2 and self._lcr & DLAB:
            return self._divisor >> 8 * register & 0xFF
        if register == 0:
            return self._read_data()
        if register == 1:
            return self._ier
        if register == 2:
            return self._read_iir()
        if register == 5:
            return self._read_lsr()
        if register == 6:
            return self._read_msr()
        return (self._lcr, self._mcr, 0, 0, self._scr)[register - 3]

    def write(self, port: int, size: int, value: int) -> None:
        """Write one of the eight registers; LSR and MSR cannot be written."""
        register = port & 7
        if register < 2 and self._lcr & DLAB:
            shift = 8 * register
            self._divisor = self._divisor & ~(0xFF << shift) | value << shift
        elif register == 0:
            self._write_data(value)
        elif register == 1:
            self._write_ier(value & 0x0F)
        elif register == 2:
            self._write_fcr(value)
        elif register == 3:
            self._lcr = value
        elif register == 4:
            self._write_mcr(value & 0x1F)
        elif register == 7:
            self._scr = value

    def _read_data(self) -> int:
        if self._fifo:
            self._last = self._fifo.popleft()
        elif self._fcr & 1:
            self._last = 0
        self._fill()
        self._update()
        return self._last

    def _read_iir(self) -> int:
        cause = self._cause()
        if cause == IIR_THRE:
            self._thr_emptied = False
            self._update()
        return cause | (0xC0 if self._fcr & 1 else 0)

    def _read_lsr(self) -> int:
        value = LSR_IDLE | (LSR_DR if self._fifo else 0)
        if self._overrun:
            value |= LSR_OE
            self._overrun = False
            self._update()
        return value

    def _read_msr(self) -> int:
        if not self._mcr & LOOP:
            return MSR_CONNECTED
        dtr, rts, outs = self._mcr & 1, self._mcr >> 1 & 1, self._mcr >> 2 & 3
        return rts << 4 | dtr << 5 | outs << 6

    def _write_data(self, value: int) -> None:
        if not self._ier & 2 and not self._mcr & LOOP:  # no cause comes or goes: what most guests do
            self._output(bytes((value,)))
            self._thr_emptied = True
            return
        self._thr_emptied = False
        self._update()
        if not self._mcr & LOOP:
            self._output(bytes((value,)))
        elif len(self._fifo) < self._room():
            self._fifo.append(value)
        else:
            self._overrun = True
            if not self._fcr & 1:
                self._fifo[0] = value
        self._thr_emptied = True
        self._update()

    def _write_ier(self, value: int) -> None:
        if (value ^ self._ier) & 2:
            self._thr_emptied = bool(value & 2)  # enabling it reports a THR that was empty all the time
        self._ier = value
        self._update()

    def _write_fcr(self, value: int) -> None:
        if (value ^ self._fcr) & 1:
            value |= 6
        if value & 2:
            self._fifo.clear()
        if value & 4:
            self._thr_emptied = True
        self._fcr = value & 0xC9
        self._fill()
        self._update()

    def _write_mcr(self, value: int) -> None:
        self._mcr = value
        self._fill()
        self._update()

    def _room(self) -> int:
        return FIFO if self._fcr & 1 else 1

    def _fill(self) -> None:
        """Let in what waits, as far as there is room; in loopback nothing comes in."""
        while self._waiting and len(self._fifo) < self._room() and not self._mcr & LOOP:
            self._fifo.append(self._waiting.popleft())

    def _cause(self) -> int:
        """Return the interrupt identification of the most urgent enabled cause."""
        if self._ier & 4 and self._overrun:
            return IIR_LINE
        if self._ier & 1 and self._fifo:
            filled = not self._fcr & 1 or len(self._fifo) >= TRIGGER_LEVELS[self._fcr >> 6]
            return IIR_DATA if filled else IIR_TIMEOUT
        if self._ier & 2 and self._thr_emptied:
            return IIR_THRE
        return IIR_NONE

    def _update(self) -> None:
        level = self._cause() != IIR_NONE
        if level != self._level:
            self._level = level
            self._irq(level)
