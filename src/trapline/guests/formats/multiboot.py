"""The multiboot 1 header (Multiboot specification 0.6.96, 3.1) as QEMU's loader reads it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from trapline.errors import GuestImageError

from .elf import EM_X86_64

if TYPE_CHECKING:
    from .elf import ElfImage

MAGIC = 0x1BADB002
_MAGIC_BYTES = struct.pack("<I", MAGIC)
MAGIC2 = 0xE85250D6  # multiboot 2
SEARCHED = 8192
_HEADER_SIZE = 48  # QEMU stops that far from the end of the searched part
_WANTS_VIDEO = 0x0000_0004
_HAS_ADDRESSES = 0x0001_0000
_UNKNOWN_NEEDS = 0xFFF8  # of the flags that must be understood, 0-2 are defined


class MultibootHeader(NamedTuple):
    """A header found: its offset in the file, its flags and, when it has them, its address fields (gpa)."""

    offset: int
    flags: int
    header_address: int
    load_address: int
    load_end: int
    """Zero: the end of the file."""
    bss_end: int
    """Zero: nothing to clear."""
    entry: int

    @property
    def wants_video(self) -> bool:
        """Whether the image asks the loader for a video mode."""
        return bool(self.flags & _WANTS_VIDEO)

    @property
    def has_addresses(self) -> bool:
        """Whether the loader goes by the header's addresses (the a.out kludge) and not by ELF."""
        return bool(self.flags & _HAS_ADDRESSES)


def find(head: bytes) -> MultibootHeader | None:
    """Return the first header whose three words add up to zero."""
    searched = head[:SEARCHED]
    # In a short file the header may be its 12 bytes alone.
    last = min(SEARCHED - _HEADER_SIZE, len(searched) - 12)
    for offset in range(0, last + 1, 4):
        magic, flags, checksum = struct.unpack_from("<III", searched, offset)
        if magic == MAGIC and (magic + flags + checksum) & 0xFFFF_FFFF == 0:
            return _header(searched, offset, flags)
    return None


def _header(searched: bytes, offset: int, flags: int) -> MultibootHeader:
    if not flags & _HAS_ADDRESSES:
        return MultibootHeader(offset, flags, 0, 0, 0, 0, 0)
    if len(searched) < offset + 32:
        raise GuestImageError("multiboot image cut short: it ends inside the header's address fields")
    addresses = struct.unpack_from("<5I", searched, offset + 12)
    return MultibootHeader(offset, flags, *addresses)


def check_not_late(content: bytes) -> None:
    """Raise GuestImageError for a header where no loader looks for it."""
    start = SEARCHED - _HEADER_SIZE
    while (offset := content.find(_MAGIC_BYTES, start)) >= 0:
        words = struct.unpack_from("<III", content.ljust(offset + 12, b"\xff"), offset)
        if offset % 4 == 0 and sum(words) & 0xFFFF_FFFF == 0:
            raise GuestImageError(
                f"multiboot header at {offset:#x} of the file, where no loader looks for it: put its section first in "
                "the linker script, in the first 8 KiB (ld -n, without padding to pages, may do too)"
            )
        start = offset + 1


def multiboot2_present(head: bytes) -> bool:
    """Whether a multiboot 2 header (magic, architecture i386, length, checksum) is in the first 32 KiB."""
    for offset in range(0, min(32768, len(head)) - 15, 8):
        words = struct.unpack_from("<4I", head, offset)
        if words[0] == MAGIC2 and sum(words) & 0xFFFF_FFFF == 0:
            return True
    return False


def describe_elf(header: MultibootHeader, image: ElfImage) -> str:
    """Return a description of an ELF kernel. Raises GuestImageError for a 64-bit one, which QEMU refuses."""
    _check_needs(header)
    if header.has_addresses:
        return f"multiboot kernel, {image.name}, loaded by the header's addresses, entry at {header.entry:#x}"
    if image.bits == 64 or image.machine == EM_X86_64:
        raise GuestImageError(
            f"{image.name} with a multiboot header: QEMU's multiboot loader takes only 32-bit ELF images; "
            "convert it: objcopy -O elf32-i386 KERNEL KERNEL.elf32"
        )
    return f"multiboot kernel, {image.name}"


def describe_flat(header: MultibootHeader, size: int) -> str:
    """Return a description of a kernel that is not an ELF file: its header must have the address fields."""
    _check_needs(header)
    if not header.has_addresses:
        raise GuestImageError(
            f"multiboot header at {header.offset:#x} without address fields in a file that is not ELF: "
            "its load address is unknown; give the ELF file, or set flag 16 and the address fields"
        )
    before = header.header_address - header.load_address
    if not 0 <= before <= header.offset:
        raise GuestImageError(
            f"multiboot header at {header.offset:#x} with addresses that do not fit the file: "
            f"header at {header.header_address:#x}, load at {header.load_address:#x}"
        )
    return f"multiboot kernel, flat image of {size} bytes, entry at {header.entry:#x}"


def _check_needs(header: MultibootHeader) -> None:
    if header.flags & _UNKNOWN_NEEDS:
        raise GuestImageError(
            f"multiboot header at {header.offset:#x} demands features that multiboot 1 does not define "
            f"(flags {header.flags:#010x})"
        )
