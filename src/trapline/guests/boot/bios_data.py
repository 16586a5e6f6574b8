"""What a PC's BIOS leaves in memory: interrupt vectors of real mode, and its data area with the extended one."""

from __future__ import annotations

import struct
from typing import Final

LOW_END: Final = 0x9_FC00
"""The end of conventional memory, where the extended BIOS data area begins."""

# push ax; mov al, 20h; out 0A0h, al (the slave's); out 20h, al; pop ax; iret
_HANDLERS: Final = b"\x50\xb0\x20\xe6\xa0\xe6\x20\x58\xcf" + b"\x50\xb0\x20\xe6\x20\x58\xcf"
_HANDLERS_SEGMENT: Final = 0xF000
_RETURN: Final = 0xFF53
"""Where the IBM PC's BIOS, and SeaBIOS after it, have the IRET that unused vectors lead to."""
_END_SLAVE: Final = _RETURN + 1 - len(_HANDLERS)
_END_MASTER: Final = _END_SLAVE + 9

# The data area (IBM Personal System/2 and Personal Computer BIOS Interface Technical Reference, "Data Areas"):
# COM1 to COM4, LPT1 to LPT3, segment of the extended area, equipment, a byte, KiB below that area.
_DATA_AREA: Final = struct.Struct("<4H3HHHxH")
_DATA_AREA_AT: Final = 0x400
_COM1: Final = 0x3F8
_EQUIPMENT: Final = 1 << 9 | 2 << 4 | 1 << 1
"""One serial port, a screen of 80 columns in colour, a coprocessor."""
# Mode of the screen, columns.
_SCREEN: Final = struct.pack("<BH", 3, 80)
_SCREEN_AT: Final = 0x449
_EXTENDED_SIZE: Final = b"\x01"
"""KiB, the first byte of the extended area."""


def vectors() -> list[tuple[int, bytes]]:
    """Return the interrupt vectors and their handlers, (gpa, bytes): an IRET, for IRQs after the end at the 8259s."""
    table = [(_RETURN, _HANDLERS_SEGMENT)] * 256
    for first, offset in ((0x08, _END_MASTER), (0x70, _END_SLAVE)):
        table[first : first + 8] = [(offset, _HANDLERS_SEGMENT)] * 8
    handlers = _HANDLERS_SEGMENT << 4
    return [(0, b"".join(struct.pack("<2H", *each) for each in table)), (handlers + _END_SLAVE, _HANDLERS)]


def data_areas() -> list[tuple[int, bytes]]:
    """Return what is not zero of the data area and of the extended one, (gpa, bytes)."""
    area = _DATA_AREA.pack(_COM1, 0, 0, 0, 0, 0, 0, LOW_END >> 4, _EQUIPMENT, LOW_END >> 10)
    return [(_DATA_AREA_AT, area), (_SCREEN_AT, _SCREEN), (LOW_END, _EXTENDED_SIZE)]
