"""qcow2 images (QEMU, docs/interop/qcow2.txt, "Header"): QEMU opens them."""

from __future__ import annotations

import struct
from typing import Final

from trapline.errors import GuestImageError

from .media import readable

_MAGIC: Final = b"QFI\xfb"
# magic, version, offset and size of the backing file's name, cluster bits, size of the disk
_HEADER: Final = struct.Struct(">4sIQIIQ")
_INCOMPATIBLE: Final = struct.Struct(">Q")
_INCOMPATIBLE_AT: Final = 72
"""From version 3 on."""
_EXTERNAL_DATA: Final = 1 << 2


def present(head: bytes) -> bool:
    """Whether a file starts as a qcow2 image does."""
    return head.startswith(_MAGIC)


def describe(head: bytes) -> str:
    """Return a description. Raises GuestImageError for an image that names other files.

    A guest that owns a raw disk can make it look like such an image: nobody asked QEMU to open what that names.
    """
    if len(head) < _INCOMPATIBLE_AT + _INCOMPATIBLE.size:
        raise GuestImageError("qcow2 image cut short")
    _, version, backing, _, _, size = _HEADER.unpack_from(head)
    (features,) = _INCOMPATIBLE.unpack_from(head, _INCOMPATIBLE_AT)
    if backing or (version > 2 and features & _EXTERNAL_DATA):
        raise GuestImageError(
            "qcow2 image that names another file, its backing or data file: if you trust it, leave GUEST out and name "
            "it to QEMU: -- -drive file=IMAGE,format=qcow2"
        )
    return f"qcow2 disk image of {readable(size)}"
