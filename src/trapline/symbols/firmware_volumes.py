"""Names of the files in the firmware volumes that UEFI's DXE phase works on (UEFI Platform Initialization 1.7, vol. 3).

Each file has a GUID; a name for people is in one of its sections. The list of hand-off blocks says where volumes are.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

from trapline.errors import FaultError

_BLOCK: Final = struct.Struct("<HH4x")
"""EFI_HOB_GENERIC_HEADER (5.2): type, length."""
_VOLUME, _END = 0x0005, 0xFFFF
_MOST_BLOCKS: Final = 10_000
_LARGEST: Final = 64 << 20
"""Bytes of a volume."""
_SIGNATURE: Final = b"_FVH"
_FILE: Final = 24
"""Bytes of EFI_FFS_FILE_HEADER (3.2.3): GUID, two checksums, type, attributes, size, state; 8 more of a large file."""
_LARGE: Final = 0x01
_SECTION: Final = 4
"""Bytes of EFI_COMMON_SECTION_HEADER (3.2.5): size, type; 4 more of a large one."""
_NAME: Final = 0x15
_UNKNOWN_SIZE: Final = 0xFF_FFFF


def file_names(read: Callable[[int, int], bytes], blocks: int) -> dict[bytes, str]:
    """Return the names of files by GUID; `blocks` is where the list of hand-off blocks is, `read` as for its images."""
    names = dict[bytes, str]()
    for base, size in _volumes(read, blocks):
        try:
            data = read(base, min(size, _LARGEST))
        except FaultError:
            continue
        for guid, content in _files(data):
            name = _name(content)
            if name:
                names.setdefault(guid, name)
    return names


def _volumes(read: Callable[[int, int], bytes], at: int) -> Iterator[tuple[int, int]]:
    try:
        for _ in range(_MOST_BLOCKS):
            kind, length = _BLOCK.unpack(read(at, _BLOCK.size))
            if kind == _END or length < _BLOCK.size:
                return
            if kind == _VOLUME:
                base, size = struct.unpack("<QQ", read(at + _BLOCK.size, 16))
                yield base, size
            at += length
    except FaultError:
        return


def _files(volume: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield GUID and content of the files of a volume (3.2.1)."""
    if volume[0x28:0x2C] != _SIGNATURE:
        return
    length, extended = struct.unpack_from("<H2xH", volume, 0x30)
    at = length
    if extended and extended + 20 <= len(volume):
        at = extended + struct.unpack_from("<I", volume, extended + 16)[0]
    while (at := -(-at // 8) * 8) + _FILE <= len(volume):
        size, header = int.from_bytes(volume[at + 20 : at + 23], "little"), _FILE
        if volume[at + 19] & _LARGE:
            size, header = int.from_bytes(volume[at + 24 : at + 32], "little"), _FILE + 8
        if size in (0, _UNKNOWN_SIZE) or size < header:
            return
        yield volume[at : at + 16], volume[at + header : at + size]
        at += size


def _name(content: bytes) -> str | None:
    """Return what the section with the file's name has, among those that are not inside others."""
    at = 0
    while at + _SECTION <= len(content):
        size, header = int.from_bytes(content[at : at + 3], "little"), _SECTION
        if size == _UNKNOWN_SIZE:
            size, header = int.from_bytes(content[at + 4 : at + 8], "little"), _SECTION + 4
        if size < header:
            return None
        if content[at + 3] == _NAME:
            return content[at + header : at + size].decode("utf-16-le", "replace").rstrip("\0") or None
        at = -(-(at + size) // 4) * 4
    return None
