"""Images that UEFI firmware boots, and no BIOS: an EFI system partition and no boot code (UEFI 2.10, 3.5 and 13.3)."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Final

from . import fat
from .media import SECTOR

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM: Final = ("EFI", "BOOT", "BOOTX64.EFI")
"""Where firmware for x86-64 looks for a program on removable media."""
_BOOT_CODE: Final = slice(0, 440)
_GPT: Final = b"EFI PART"
_GPT_ENTRIES_AT: Final = 72
_GPT_MOST: Final = 128
_MBR_TYPES: Final = range(450, 510, 16)
_MBR_TYPE: Final = 0xEF
_TYPE: Final = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
_NOT_BOOTABLE: Final = (b"not a bootable disk", b"not bootable")
"""What the boot code prints that mkfs.fat and mformat write."""
_CATALOG_AT: Final = 0x8847  # El Torito 1.0, figure 7
_CD_SECTOR: Final = 2048
_EFI_PLATFORM: Final = 0xEF
_BOOTABLE: Final = 0x88
_HEADERS: Final = (0x90, 0x91)
_CATALOG_ENTRY: Final = 32


def disk_needs_uefi(head: bytes, read: Callable[[int, int], bytes]) -> bool:
    """Whether a raw disk has an EFI system partition and no code in its boot sector; `read(offset, size)` reads on."""
    if any(head[_BOOT_CODE]):
        boots_not = any(text in head[:SECTOR] for text in _NOT_BOOTABLE) or not any(head[62 : _BOOT_CODE.stop])
        return boots_not and fat.has_efi_directory(head, read)
    if head[SECTOR : SECTOR + len(_GPT)] != _GPT:
        return any(head[at] == _MBR_TYPE for at in _MBR_TYPES)
    start, count, size = _fields("<QII", head, SECTOR + _GPT_ENTRIES_AT)
    count, size = min(count, _GPT_MOST), min(size, SECTOR)
    entries = read(start * SECTOR, count * size)
    return any(entries[number * size :].startswith(_TYPE) for number in range(count))


def iso_needs_uefi(head: bytes, read: Callable[[int, int], bytes]) -> bool:
    """Whether El Torito's catalog has an entry for UEFI, and none that a BIOS boots."""
    (sector,) = _fields("<I", head, _CATALOG_AT)
    catalog = read(sector * _CD_SECTOR, _CD_SECTOR)
    if len(catalog) < _CD_SECTOR or catalog[0] != 1:
        return False
    platforms = {catalog[1]} if catalog[_CATALOG_ENTRY] == _BOOTABLE else set[int]()
    sections = range(2 * _CATALOG_ENTRY, _CD_SECTOR, _CATALOG_ENTRY)
    platforms |= {catalog[at + 1] for at in sections if catalog[at] in _HEADERS}
    return platforms == {_EFI_PLATFORM}


def folder_present(folder: Path) -> bool:
    """Whether a folder has a program where firmware looks for it, in names of any case."""
    try:
        for name in PROGRAM:
            folder = next(path for path in folder.iterdir() if path.name.upper() == name)
        return folder.is_file()
    except (OSError, StopIteration, ValueError):  # the last for a NUL byte in the name
        return False


def _fields(form: str, head: bytes, at: int) -> tuple[int, ...]:
    """Unpack numbers; those beyond the end of an image that was cut are 0."""
    return struct.unpack_from(form, head.ljust(at + struct.calcsize(form), b"\0"), at)
