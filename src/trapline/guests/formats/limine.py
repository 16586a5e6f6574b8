"""Kernels of the Limine boot protocol (PROTOCOL.md, "Features"), by the number that each of their requests has."""

from __future__ import annotations

import struct
from typing import Final

_COMMON_MAGIC: Final = struct.pack("<2Q", 0xC7B1_DD30_DF4C_8B88, 0x0A82_E883_A194_F07B)
REFUSAL: Final = (
    "kernel of the Limine boot protocol, which its loader alone can start: give an ISO or disk image with Limine and "
    "the kernel on it"
)


def present(content: bytes) -> bool:
    """Whether an image has a request to Limine."""
    return _COMMON_MAGIC in content
