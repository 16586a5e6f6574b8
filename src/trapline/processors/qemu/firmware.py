"""The firmware that QEMU starts: the user's, with its reset vector redirected to an entry of ours.

Of a PC BIOS the last 64 KiB have a hole of zeros, where a jump has room; the entry is below the BIOS:

    4 GiB - size   the entry: GDT, code that enters long mode with SVM and jumps to the monitor
    4 GiB - BIOS   the BIOS as it is, but for the reset vector and 30 bytes in the hole

UEFI firmware, which may be in flash, has nothing below it that is ours. Its last 64 KiB have a hole of ones, free space
of a firmware volume that takes the entry too.

The guest then starts at the firmware's own first instruction, as after a reset.
"""

import struct
from typing import Final, NamedTuple

from trapline.arch.bits import M16
from trapline.arch.reset import RESET_VECTOR
from trapline.errors import UsageError

from . import firmware_entry
from .firmware_entry import trampoline

_TOP: Final = 1 << 32
_BELOW: Final = 0x10000
"""Bytes of the image below a PC BIOS."""
_LARGEST_BIOS: Final = 1 << 20
"""Bytes of a PC BIOS: it is copied below 1 MiB."""
_UEFI_SHADOW: Final = 0x2_0000
"""Bytes of the end of larger firmware that a PC shows below 1 MiB (QEMU: pc_sysfw.c, pc_isa_bios_init)."""
_FIRMWARE_VOLUME: Final = b"_FVH"
"""The signature of a firmware volume (UEFI Platform Initialization, vol. 3, 3.2.1)."""
_RESET_VECTOR: Final = RESET_VECTOR & M16
_SEGMENT: Final = 0x10000
_FLASH_BLOCK: Final = 0x1000
_FAR_JUMP: Final = 0xEA
_NEAR_JUMP: Final = 0xE9


class Firmware(NamedTuple):
    """The image for QEMU, and what was changed in the firmware."""

    image: bytes
    bios: bytes
    """The firmware as it came."""
    patches: tuple[tuple[int, bytes], ...]
    """(offset from the firmware's start, our bytes) for each place that differs."""
    start: tuple[int, int] | None
    """Selector and offset of its first jump, where its first instruction is a far one."""
    uefi: bool
    """It is not a PC BIOS, which shadows itself in RAM below 1 MiB and finds out there whether it did."""

    @property
    def shadow(self) -> bytes:
        """Its end, as far as it is put in RAM below 1 MiB."""
        return self.bios[-_UEFI_SHADOW:] if self.uefi else self.bios


def wrap(bios: bytes, *, unlock_svm: bool, flash: bool = False) -> Firmware:
    """Redirect the reset vector to an entry, below a PC BIOS or inside UEFI firmware.

    `unlock_svm`: set EFER.SVME on a CPU whose CPUID shows no SVM. `flash`: the image is that of a flash chip. Raises
    UsageError for an image that is neither.
    """
    granularity = _FLASH_BLOCK if flash else _SEGMENT
    if len(bios) < _SEGMENT or len(bios) % granularity:
        what = (
            "flash is a multiple of 4 KiB, and 64 KiB at least"
            if flash
            else "a PC BIOS is a multiple of 64 KiB, and what is in flash is named by -pflash"
        )
        raise UsageError(f"the firmware image has {len(bios)} bytes; {what}")
    if bios[_RESET_VECTOR - _SEGMENT :] == b"\xff" * (_SEGMENT - _RESET_VECTOR):
        raise UsageError("its last 16 bytes are empty, where a processor starts: it is not firmware")
    uefi = flash or _FIRMWARE_VOLUME in bios
    if not uefi and len(bios) > _LARGEST_BIOS:
        raise UsageError(
            f"firmware of {len(bios) / (1 << 20):g} MiB: a PC BIOS has 1 MiB at most, and UEFI has volumes"
        )
    last = len(bios) - _SEGMENT
    size = len(trampoline(0, 0))
    if uefi:
        hole = _hole(bios, size + firmware_entry.SIZE, last, 0xFF)
        base = _TOP - len(bios) + hole + size
    else:
        hole = _hole(bios, size, last, 0)
        base = _TOP - len(bios) - _BELOW
    entry = firmware_entry.entry(base, unlock_svm=unlock_svm)
    relative = (hole - last - _RESET_VECTOR - 3) & M16
    patches = (
        (hole, trampoline(hole - last, base) + (entry if uefi else b"")),
        (last + _RESET_VECTOR, struct.pack("<BH", _NEAR_JUMP, relative)),
    )
    patched = bytearray(bios)
    for offset, data in patches:
        patched[offset : offset + len(data)] = data
    opcode, offset, selector = struct.unpack_from("<BHH", bios, last + _RESET_VECTOR)
    start = (selector, offset) if opcode == _FAR_JUMP else None
    image = bytes(patched) if uefi else entry.ljust(_BELOW, b"\0") + bytes(patched)
    return Firmware(image, bios, patches, start, uefi)


def _hole(bios: bytes, size: int, last: int, fill: int) -> int:
    """Return where the last 64 KiB, from `last` on, have the last room of `size` bytes that are all `fill`."""
    found = bios.rfind(bytes((fill,)) * size, last, last + _RESET_VECTOR)
    if found < 0:
        raise UsageError(
            f"the firmware has no hole of {size} bytes in its last 64 KiB for trapline's entry; SeaBIOS and OVMF have"
        )
    return found
