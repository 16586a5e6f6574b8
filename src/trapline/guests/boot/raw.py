"""Images without a header: raw code at an address, and boot sectors."""

from __future__ import annotations

from functools import partial
from typing import Final

from trapline.arch.registers import RFLAGS
from trapline.errors import GuestImageError
from trapline.machine.boot import Boot

from . import states
from .ram import HIGH_START, Ram

SECTOR: Final = 512
BOOT_ADDRESS: Final = 0x7C00
DEFAULT_ADDRESS: Final = {16: BOOT_ADDRESS, 32: HIGH_START, 64: HIGH_START}


def raw(image: bytes, mode: int, address: int, memory: int) -> Boot:
    """Enter code at its first byte, in code of 16, 32 or 64 bits."""
    if address < 0:
        raise GuestImageError(f"no address is negative, as {address:#x} is")
    ram = Ram(memory)
    ram.load("the image", address, image)
    description = f"raw image of {len(image)} bytes at {address:#x}, {mode}-bit code"
    if mode == 16:
        if address >= HIGH_START:
            raise GuestImageError(f"real mode reaches no entry at {address:#x}: load it below 1 MiB")
        # Without a BIOS the stack grows down from the image, or from the end of the segment.
        rsp = address & 0xFFFF if 0x1000 <= address < 0x10000 else 0xFFFE
        return Boot("raw", description, ram.loads, partial(states.enter_real, address=address, rsp=rsp, rdx=0))
    return Boot("raw", description, ram.loads, ram.block(mode).enter(address))


def boot_sector(image: bytes, drive: int, memory: int) -> Boot:
    """Enter a boot sector as a BIOS does, with DL the drive; its calls of the BIOS return at once."""
    ram = Ram(memory)
    ram.load_bios_data()
    ram.load("the boot sector", BOOT_ADDRESS, image[:SECTOR])
    enter = partial(states.enter_real, address=BOOT_ADDRESS, rsp=BOOT_ADDRESS, rdx=drive, rflags=RFLAGS.IF)
    description = f"boot sector at 0000:{BOOT_ADDRESS:04X}, DL={drive:#04x}; no BIOS: INT 10h, 13h and 15h do nothing"
    return Boot("boot sector", description, ram.loads, enter)
