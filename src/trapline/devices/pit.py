"""The 8254 timer and the speaker port 0x61 that gates its channel 2 (Intel 8254 data sheet).

All channels count one clock of 1,193,182 Hz that starts with the virtual clock, so nothing is rounded twice. Counting
is binary also where BCD is asked for, and a new count begins at once, not with the next period (both as in QEMU).
"""

from collections.abc import Callable
from typing import Final

from . import SECOND

FREQUENCY: Final = 1_193_182
"""In Hz."""
PORT: Final = 0x40
SPEAKER: Final = 0x61
REFRESH_PERIOD: Final = 15_085
"""Bit 4 of port 0x61 changes with each refresh of the memory, in ns; old delay loops count it."""

ONE_SHOT: Final = (1, 5)
"""The modes that wait for a rising edge of the gate."""


class Channel:
    """One counter. Times are ticks of the common clock."""

    def __init__(self, ticks: Callable[[], int], *, gate: bool) -> None:
        """Count what `ticks` counts, while `gate` is high."""
        self._ticks = ticks
        self.gate = gate
        self.command(0x36)
        self._load(0)

    def command(self, value: int) -> None:
        """Take a control word for this channel."""
        access = value >> 4 & 3
        if access == 0:
            self.latch_count()
            return
        mode = value >> 1 & 7
        self.mode = mode - 4 if mode > 5 else mode
        self._access, self._bcd = access, value & 1
        self._count: int | None = None
        self._start: int | None = None
        self._held = 0
        self._high_next_read = self._high_next_write = access == 2
        self._low = 0
        self._latched: list[int] = []
        self._status: int | None = None

    def latch_count(self) -> None:
        """Keep the count for the next reads, unless one is kept already."""
        if not self._latched:
            count = self._value()
            self._latched = [(count & 0xFF, count >> 8)[high] for high in (0, 1) if self._access >> high & 1]

    def latch_status(self) -> None:
        """Keep the status for the next read, unless one is kept already."""
        if self._status is None:
            null = self._count is None
            self._status = self.output << 7 | null << 6 | self._access << 4 | self.mode << 1 | self._bcd

    def read(self) -> int:
        """Read the port: what is latched, status first, or the running count."""
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._latched:
            return self._latched.pop(0)
        high = self._high_next_read
        if self._access == 3:
            self._high_next_read = not high
        return self._value() >> (8 if high else 0) & 0xFF

    def write(self, value: int) -> None:
        """Write the port: a count, or half of it."""
        if self._access != 3:
            self._load(value << 8 if self._high_next_write else value)
        elif self._high_next_write:
            self._high_next_write = False
            self._load(value << 8 | self._low)
        else:
            self._high_next_write = True
            self._low = value

    def set_gate(self, level: bool) -> None:
        """Drive the gate: it pauses modes 0 and 4, restarts 2 and 3 and triggers 1 and 5."""
        if level and not self.gate and self._count is not None:
            self._start = self._ticks() - self._held
        elif not level and self.gate and self.mode not in ONE_SHOT:
            self._held = self._elapsed() if self.mode in (0, 4) else 0
            self._start = None
        self.gate = level

    @property
    def output(self) -> bool:
        """The level of OUT."""
        count, elapsed = self._count, self._elapsed()
        if self.mode == 0:
            return count is not None and elapsed >= count
        if count is None or self._start is None:
            return True
        if self.mode == 1:
            return elapsed >= count
        if self.mode == 2:
            return elapsed % count != count - 1
        if self.mode == 3:
            return elapsed % count < count + 1 >> 1
        return elapsed != count

    def next_edge(self, after: int) -> int | None:
        """Return the first tick after another at which OUT rises; None if it does not."""
        if self._count is None or self._start is None:
            return None
        if self.mode in (2, 3):
            elapsed = max(after - self._start, 0)
            return self._start + (elapsed // self._count + 1) * self._count
        edge = self._start + self._count + (self.mode in (4, 5))
        return edge if edge > after else None

    def _load(self, value: int) -> None:
        self._count = value or 0x10000
        self._held = 0
        self._start = self._ticks() if self.gate and self.mode not in ONE_SHOT else None

    def _elapsed(self) -> int:
        return self._held if self._start is None else self._ticks() - self._start

    def _value(self) -> int:
        if self._count is None:
            return 0
        elapsed = self._elapsed()
        if self.mode == 2:
            value = self._count - elapsed % self._count
        elif self.mode == 3:
            value = self._count - 2 * elapsed % self._count
        else:
            value = self._count - elapsed
        return value & 0xFFFF


class Pit:
    """Three channels: 0 drives IRQ 0, 2 is read at port 0x61, 1 is the memory's refresh and drives nothing."""

    def __init__(self, clock: Callable[[], int], irq: Callable[[bool], None]) -> None:
        """Count the virtual nanoseconds of `clock`; `irq` is IRQ 0."""
        self._clock, self._irq = clock, irq
        self._edge: int | None = None
        """The tick at which IRQ 0 rises next."""
        self.reset()

    def reset(self) -> None:
        """Be as firmware leaves it: channel 0 in mode 2 at 18.2 Hz, the gate of channel 2 low."""
        self._channels = [Channel(self.ticks, gate=gate) for gate in (True, True, False)]
        self._speaker = 0
        self.write(PORT + 3, 1, 0x34)
        self.write(PORT, 1, 0)
        self.write(PORT, 1, 0)

    def ticks(self) -> int:
        """Return the tick that the clock is in."""
        return self._clock() * FREQUENCY // SECOND

    def next_event(self) -> int | None:
        """Return when IRQ 0 rises next, in virtual ns."""
        return None if self._edge is None else -(-self._edge * SECOND // FREQUENCY)

    def advance(self) -> None:
        """Raise IRQ 0 if its time has come: once, however late it is; the period keeps its phase."""
        self._advance(self.ticks())

    def _advance(self, now: int) -> None:
        if self._edge is not None and now >= self._edge:
            self._edge = self._channels[0].next_edge(now)
            self._irq(True)
            self._irq(False)

    def read(self, port: int, size: int) -> int:
        """Read a channel; the control port reads 0."""
        return self._channels[port & 3].read() if port & 3 != 3 else 0

    def write(self, port: int, size: int, value: int) -> None:
        """Write a channel or the control port. The clock runs on: an edge since `now` is still to be raised."""
        now = self.ticks()
        self._advance(now)
        selected = port & 3
        if selected != 3:
            self._channels[selected].write(value)
        elif value >> 6 != 3:
            self._channels[value >> 6].command(value)
        else:
            self._read_back(value)
        self._edge = self._channels[0].next_edge(now)

    def _read_back(self, value: int) -> None:
        for number, channel in enumerate(self._channels):
            if value >> number + 1 & 1:
                if not value & 0x20:
                    channel.latch_count()
                if not value & 0x10:
                    channel.latch_status()

    def read_speaker(self, port: int, size: int) -> int:
        """Read port 0x61: gate and output of channel 2, the speaker's switch, the refresh bit."""
        refresh = self._clock() // REFRESH_PERIOD & 1
        channel = self._channels[2]
        return channel.gate | self._speaker | refresh << 4 | channel.output << 5

    def write_speaker(self, port: int, size: int, value: int) -> None:
        """Write port 0x61: the gate of channel 2 and the speaker, which makes no sound."""
        self._speaker = value & 2
        self._channels[2].set_gate(bool(value & 1))
