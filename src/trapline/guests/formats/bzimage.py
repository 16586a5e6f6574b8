"""The Linux x86 boot protocol: the setup header of a bzImage (boot.rst, "The Real-Mode Kernel Header")."""

from __future__ import annotations

import struct

from trapline.errors import GuestImageError

MAGIC = b"HdrS"
MAGIC_OFFSET = 0x202
_SETUP_SECTS_OFFSET = 0x1F1
_SYSSIZE_OFFSET = 0x1F4
_VERSION_OFFSET = 0x206
_KERNEL_VERSION_OFFSET = 0x20E
_LOADFLAGS_OFFSET = 0x211
_HEADER_END = 0x214
_LOADED_HIGH = 0x01
_PARAGRAPH = 16  # syssize counts them, so a file may be short by less than one


def present(head: bytes) -> bool:
    """Whether the setup header's magic is in its place."""
    return head[MAGIC_OFFSET : MAGIC_OFFSET + 4] == MAGIC


def describe(head: bytes, size: int) -> str:
    """Return protocol and kernel version on one line. Raises GuestImageError for a file that is cut short."""
    if len(head) < _HEADER_END:
        raise GuestImageError(f"bzImage cut short: {size} bytes end inside the setup header")
    (version,) = struct.unpack_from("<H", head, _VERSION_OFFSET)
    if version < 0x200:
        raise GuestImageError(f"bzImage with boot protocol {version:#06x}: 2.00 or later is needed")
    _check_length(head, size, version)
    name = "bzImage" if head[_LOADFLAGS_OFFSET] & _LOADED_HIGH else "zImage (loaded low)"
    text = f"{name}, boot protocol {version >> 8}.{version & 0xFF:02}"
    kernel = kernel_version(head)
    return f"{text}, {kernel}" if kernel else text


def kernel_version(head: bytes) -> str:
    """The kernel's own version string up to its first blank; empty when there is none in reach."""
    (pointer,) = struct.unpack_from("<H", head, _KERNEL_VERSION_OFFSET)
    if pointer == 0:
        return ""
    text = head[0x200 + pointer : 0x200 + pointer + 256].split(b"\0", 1)[0].decode("ascii", "replace")
    # The version string has builder and date as well: only its first word fits on the line.
    kernel = text.split(" (", 1)[0].strip()
    return kernel if kernel.isprintable() else ""


def _check_length(head: bytes, size: int, version: int) -> None:
    sectors = head[_SETUP_SECTS_OFFSET] or 4  # boot.rst: 0 means 4
    # Before protocol 2.04 only the low half of syssize can be trusted.
    width = "<I" if version >= 0x204 else "<H"
    (paragraphs,) = struct.unpack_from(width, head, _SYSSIZE_OFFSET)
    setup = (sectors + 1) * 512
    promised = setup + paragraphs * _PARAGRAPH
    if size <= setup or size <= promised - _PARAGRAPH:
        raise GuestImageError(f"bzImage cut short: its header promises {promised} bytes, the file has {size}")
