"""The real-time clock and the CMOS memory at ports 0x70 and 0x71 (Motorola MC146818A data sheet).

The clock runs with the virtual clock. Firmware's memory sizes are those that SeaBIOS and QEMU agree on.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from . import SECOND
from .rtc_interrupts import SET, RtcInterrupts

INDEX: Final = 0x70
DATA: Final = 0x71

STATUS_A: Final = 0x0A
STATUS_B: Final = 0x0B
STATUS_C: Final = 0x0C
STATUS_D: Final = 0x0D
CENTURY: Final = 0x32
PS2_CENTURY: Final = 0x37
TIME: Final = (0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CENTURY)
"""Second, minute, hour, day of the week, day, month, year, century."""
ALARM: Final = (0x01, 0x03, 0x05)
"""Second, minute, hour; from 0xC0 on, any."""

BINARY: Final = 0x04
HOURS_24: Final = 0x02
UPDATE_INTERRUPT: Final = 0x10
"""Bits of status B."""

UPDATE: Final = 2_228_000
"""How long before the second changes the update bit is set, in ns."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR: Final = 8000 * 146_097 // 400 * 86_400
"""Seconds after which the calendar wraps, before year 10000."""


class Cmos:
    """128 bytes; the first ones follow the clock."""

    def __init__(self, memory: int, clock: Callable[[], int], irq: Callable[[bool], None], epoch: int) -> None:
        """Describe `memory` bytes; `epoch` is the time of day at virtual time 0, in seconds since 1970 (UTC)."""
        self._clock = clock
        self.interrupts = RtcInterrupts(clock, irq, self._alarm)
        self._offset = epoch
        self._memory = memory
        self.reset()

    def reset(self) -> None:
        """Reset to the state that firmware leaves; the time is kept."""
        self._index = 0
        self.nmi_disabled = False
        """Bit 7 of port 0x70 keeps NMIs from the CPU."""
        self._bytes = bytearray(128)
        self._bytes[STATUS_A], self._bytes[STATUS_B] = 0x26, HOURS_24
        self._bytes[0x14] = 0x02  # equipment: a floating point unit
        for first, count, value in sizes(self._memory):
            self._bytes[first : first + count] = value.to_bytes(count, "little")
        self.interrupts.reset(self._bytes[STATUS_A], self._bytes[STATUS_B])

    def read(self, port: int, size: int) -> int:
        """Read the byte at the index; the index itself cannot be read."""
        if port != DATA:
            return 0xFF
        index = self._index
        if index in TIME:
            return self._now()[TIME.index(index)]
        if index == STATUS_A:
            updating = not self._stopped and self._clock() % SECOND >= SECOND - UPDATE
            return self._bytes[STATUS_A] | updating << 7
        if index == STATUS_C:
            return self.interrupts.read()
        if index == STATUS_D:
            return 0x80  # the battery is good
        return self._bytes[index]

    def write(self, port: int, size: int, value: int) -> None:
        """Write the index or the byte at it."""
        if port == INDEX:
            self.nmi_disabled = bool(value & 0x80)
            index = value & 0x7F
            self._index = CENTURY if index == PS2_CENTURY else index
        elif self._index in TIME:
            fields = self._now()
            fields[TIME.index(self._index)] = value
            self._set(fields)
        elif self._index == STATUS_B:
            self._write_status_b(value)
        elif self._index == STATUS_A:
            self._bytes[STATUS_A] = value & 0x7F
            self.interrupts.configure(self._bytes[STATUS_A], self._bytes[STATUS_B])
        elif self._index not in (STATUS_C, STATUS_D):
            self._bytes[self._index] = value

    @property
    def _stopped(self) -> bool:
        return bool(self._bytes[STATUS_B] & SET)

    def _write_status_b(self, value: int) -> None:
        fields, was_stopped = self._now(), self._stopped
        self._bytes[STATUS_B] = value & ~UPDATE_INTERRUPT if value & SET else value
        self.interrupts.configure(self._bytes[STATUS_A], self._bytes[STATUS_B])
        if value & SET and not was_stopped:
            self._keep(fields)
        elif was_stopped and not value & SET:
            self._set(fields)

    def _now(self) -> list[int]:
        """Return the time as the registers of `TIME` show it."""
        if self._stopped:
            return [self._bytes[index] for index in TIME]
        now = EPOCH + timedelta(seconds=(self._clock() // SECOND + self._offset) % CALENDAR)
        hour = self._shown_hour(now.hour)
        weekday = now.isoweekday() % 7 + 1
        century, year = divmod(now.year, 100)
        second, minute, day, month = (self._shown(part) for part in (now.second, now.minute, now.day, now.month))
        return [second, minute, hour, weekday, day, month, self._shown(year), self._shown(century)]

    def _set(self, fields: list[int]) -> None:
        """Set the clock, or keep the fields while it is stopped. What is not a time changes nothing."""
        if self._stopped:
            self._keep(fields)
            return
        hour = self._meant(fields[2] & 0x7F)
        if not self._bytes[STATUS_B] & HOURS_24:
            hour = hour % 12 + (12 if fields[2] & 0x80 else 0)
        second, minute, _, _, day, month, year, century = (self._meant(field) for field in fields)
        try:
            wanted = datetime(century * 100 + year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            return
        self._offset = (wanted - EPOCH) // timedelta(seconds=1) - self._clock() // SECOND

    def _keep(self, fields: list[int]) -> None:
        for index, field in zip(TIME, fields, strict=True):
            self._bytes[index] = field

    def _alarm(self, second: int) -> bool:
        time = (second + self._offset) % 86_400
        shown = self._shown(time % 60), self._shown(time // 60 % 60), self._shown_hour(time // 3600)
        return all(
            self._bytes[index] == part or self._bytes[index] >= 0xC0 for index, part in zip(ALARM, shown, strict=True)
        )

    def _shown_hour(self, hour: int) -> int:
        if self._bytes[STATUS_B] & HOURS_24:
            return self._shown(hour)
        return self._shown((hour + 11) % 12 + 1) | (hour >= 12) << 7

    def _shown(self, number: int) -> int:
        return number if self._bytes[STATUS_B] & BINARY else number // 10 << 4 | number % 10

    def _meant(self, shown: int) -> int:
        return shown if self._bytes[STATUS_B] & BINARY else (shown >> 4) * 10 + (shown & 0x0F)


def sizes(memory: int) -> list[tuple[int, int, int]]:
    """Return first index, number of bytes and value of the memory sizes; RAM above 3 GiB counts from 4 GiB on."""
    low = min(memory, 3 << 30)
    extended = min(max(low - (1 << 20), 0) >> 10, 0xFFFF)
    return [
        (0x15, 2, min(low >> 10, 640)),
        (0x17, 2, extended),
        (0x30, 2, extended),
        (0x34, 2, min(max(low - (16 << 20), 0) >> 16, 0xFFFF)),
        (0x5B, 3, memory - low >> 16),
    ]
