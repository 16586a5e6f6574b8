"""Media a BIOS boots: ISO 9660 images, raw disks and floppies."""

from __future__ import annotations

import struct

SECTOR = 512
_ISO_MAGIC_OFFSET = 0x8001  # ECMA-119 8.1.2: standard identifier of the first descriptor, sector 16
_ISO_MAGIC = b"CD001"
_ISO_PRIMARY = 1
_ISO_VOLUME = slice(0x8028, 0x8048)  # ECMA-119 8.4.7, in a primary descriptor
_EL_TORITO_OFFSET = 0x8801  # El Torito 1.0, figure 7: always sector 17
_EL_TORITO = b"CD001\x01EL TORITO SPECIFICATION"
_SIGNATURE_OFFSET = 510
_SIGNATURE = b"\x55\xaa"
_PARTITIONS_OFFSET = 446
_GPT_MAGIC = b"EFI PART"
_GPT_PROTECTIVE = 0xEE

# The sizes QEMU's floppy controller knows (hw/block/fdc.c), in bytes.
_FLOPPIES = {
    163840: "160 KB",
    184320: "180 KB",
    327680: "320 KB",
    368640: "360 KB",
    737280: "720 KB",
    1228800: "1.2 MB",
    1474560: "1.44 MB",
    1720320: "1.68 MB",
    2949120: "2.88 MB",
}
LARGEST_FLOPPY = max(_FLOPPIES)
# Place and length of bytes per sector, sectors, and media byte; 0xF8 is a hard disk.
_PARAMETERS = ((0x0B, 2), (0x13, 2), (0x15, 1))
_FLOPPY_MEDIA = (0xF0, *range(0xF9, 0x100))


def iso_present(head: bytes) -> bool:
    """Whether the first volume descriptor of ISO 9660 is in its place."""
    return head[_ISO_MAGIC_OFFSET : _ISO_MAGIC_OFFSET + 5] == _ISO_MAGIC


def describe_iso(head: bytes) -> str:
    """Return the volume's name and whether a BIOS can boot it, as text."""
    bootable = head[_EL_TORITO_OFFSET : _EL_TORITO_OFFSET + len(_EL_TORITO)] == _EL_TORITO
    label = ""
    if head[_ISO_MAGIC_OFFSET - 1] == _ISO_PRIMARY:
        label = head[_ISO_VOLUME].decode("ascii", "replace").strip(" \0")
    named = f" {label!r}" if label and label.isprintable() else ""
    return f"ISO 9660 image{named}, " + (
        "bootable (El Torito)" if bootable else "not bootable (no El Torito boot record)"
    )


def boot_signature_present(head: bytes) -> bool:
    """Whether the first sector ends in 55 AA."""
    return head[_SIGNATURE_OFFSET : _SIGNATURE_OFFSET + 2] == _SIGNATURE


def floppy_format(size: int) -> str | None:
    """The name of the floppy whose size this is exactly, or None."""
    return _FLOPPIES.get(size)


def describe_floppy(head: bytes, size: int) -> str | None:
    """Return a description of a floppy's image; None: it is another disk's.

    It has the size of a floppy and no partition table, or its BIOS parameter block describes a floppy (FAT
    specification 1.03, "Boot Sector and BPB").
    """
    if (name := _FLOPPIES.get(size)) is not None and not _partition_types(head):
        return f"{name} floppy image, by its size"
    sector, sectors, media = (int.from_bytes(head[at : at + length], "little") for at, length in _PARAMETERS)
    if sector == SECTOR and media in _FLOPPY_MEDIA and size <= sectors * SECTOR <= LARGEST_FLOPPY:
        return f"floppy image of {readable(size)}, by its boot sector's media byte {media:#04x}"
    return None


def describe_disk(head: bytes, size: int) -> str:
    """Return a description of a raw disk from its first sectors."""
    if size == SECTOR:
        return "boot sector (512 bytes)"
    kinds = _partition_types(head)
    if head[SECTOR : SECTOR + 8] == _GPT_MAGIC:
        return f"raw disk of {readable(size)} with a GPT"
    if _GPT_PROTECTIVE in kinds:
        return f"raw disk of {readable(size)} with a protective MBR but no GPT header"
    if kinds:
        count = f"{len(kinds)} partition" + ("s" if len(kinds) > 1 else "")
        return f"raw disk of {readable(size)} with an MBR, {count}"
    return f"raw disk of {readable(size)} with a boot sector, no partitions"


def _partition_types(head: bytes) -> list[int]:
    # Without a partition table these bytes are boot code: believe them only if all four entries make sense.
    kinds = []
    for entry in range(4):
        status, kind, start, length = struct.unpack_from("<B3xB3xII", head, _PARTITIONS_OFFSET + entry * 16)
        if status not in (0x00, 0x80):
            return []
        if kind:
            if start == 0 or length == 0:
                return []
            kinds.append(kind)
    return kinds


def readable(size: int) -> str:
    """Return a size in bytes as text, in the unit that suits it."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"
