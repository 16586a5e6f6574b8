"""FAT volumes: whether one has an EFI directory, and a new one with a file (Microsoft's FAT specification 1.03)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SECTOR: Final = 512
_ENTRY: Final = 32
_DIRECTORY: Final = 0x10
_VOLUME_LABEL: Final = 0x08
_EFI: Final = b"EFI".ljust(11)
_LARGEST_ROOT: Final = 64 << 10
"""Bytes of a root directory that are looked through."""
_FAT16_CLUSTERS: Final = range(4085, 65525)
"""The number of clusters makes a volume FAT16."""
_ROOT_ENTRIES: Final = 512
_MEDIA: Final = 0xF8
_LAST: Final = 0xFFFF
_PARAMETERS: Final = struct.Struct("<3s8sHBHBHHBHHHIIBBBI11s8s")
_DATE: Final = 0x5821
"""2024-01-01: a volume does not depend on when it was made."""


def has_efi_directory(head: bytes, read: Callable[[int, int], bytes]) -> bool:
    """Whether a volume that begins with `head` has a directory EFI; `read(offset, size)` returns more of it."""
    sector, cluster, reserved, fats, entries = struct.unpack_from("<HBHBH", head, 11)
    size16, size32, root_cluster = (
        struct.unpack_from(form, head, at)[0] for form, at in (("<H", 22), ("<I", 36), ("<I", 44))
    )
    if sector != _SECTOR or not cluster or not reserved or fats not in (1, 2) or not (size16 or size32):
        return False
    at = (reserved + fats * (size16 or size32)) * sector
    if not entries:  # FAT32: the root is a chain of clusters, of which the first is enough here
        at += (root_cluster - 2) * cluster * sector
    root = read(at, min(entries * _ENTRY or cluster * sector, _LARGEST_ROOT))
    found = (root[place : place + 12] for place in range(0, len(root) - _ENTRY + 1, _ENTRY))
    return any(entry[:11] == _EFI and entry[11] & _DIRECTORY for entry in found)


class _Geometry(NamedTuple):
    cluster: int
    """Bytes of a cluster."""
    clusters: int
    fat: int
    """Sectors of the one FAT."""


def volume(path: Sequence[str], content: bytes) -> bytes:
    """Return a FAT16 volume with one file, below directories; each name has 8.3 characters. 2 GiB at most."""
    shape = _geometry(len(path) - 1, len(content))
    entries, body, cluster = [], bytearray(), 2
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        entries.append(_entry(_short(name), 0 if last else _DIRECTORY, cluster, len(content) if last else 0))
        cluster += 1
    for depth, entry in enumerate(entries[1:]):
        parent = 0 if depth == 0 else depth + 1
        dots = _entry(b".".ljust(11), _DIRECTORY, depth + 2, 0) + _entry(b"..".ljust(11), _DIRECTORY, parent, 0)
        body += (dots + entry).ljust(shape.cluster, b"\0")
    first = len(path) + 1
    count = -(-len(content) // shape.cluster)
    chain = [*range(first + 1, first + count), _LAST] if count else []
    fat = struct.pack(f"<{first + len(chain)}H", 0xFF00 | _MEDIA, *[_LAST] * (first - 1), *chain)
    start = (
        _boot_sector(shape) + fat.ljust(shape.fat * _SECTOR, b"\0") + entries[0].ljust(_ROOT_ENTRIES * _ENTRY, b"\0")
    )
    return start + bytes(body) + content + bytes(shape.clusters * shape.cluster - len(body) - len(content))


def _geometry(directories: int, size: int) -> _Geometry:
    cluster = _SECTOR
    while directories + -(-size // cluster) >= _FAT16_CLUSTERS.stop:
        cluster *= 2
    clusters = max(directories + -(-size // cluster), _FAT16_CLUSTERS.start)
    return _Geometry(cluster, clusters, -(-(clusters + 2) * 2 // _SECTOR))


def _boot_sector(shape: _Geometry) -> bytes:
    sectors = 1 + shape.fat + _ROOT_ENTRIES * _ENTRY // _SECTOR + shape.clusters * shape.cluster // _SECTOR
    small = sectors if sectors < 1 << 16 else 0
    parameters = _PARAMETERS.pack(
        *(b"\xeb\xfe\x90", b"TRAPLINE", _SECTOR, shape.cluster // _SECTOR, 1, 1, _ROOT_ENTRIES, small, _MEDIA),
        *(shape.fat, 63, 255, 0, 0 if small else sectors, 0x80, 0, 0x29, 0, b"TRAPLINE   ", b"FAT16   "),
    )
    return parameters.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"


def _short(name: str) -> bytes:
    stem, _, suffix = name.partition(".")
    return stem.ljust(8).encode("ascii") + suffix.ljust(3).encode("ascii")


def _entry(name: bytes, attributes: int, cluster: int, size: int) -> bytes:
    return struct.pack("<11sB8xH2xHHI", name, attributes, 0, _DATE, cluster, size)
