"""The images that UEFI firmware has loaded, from the table that it keeps for debuggers (UEFI 2.10, 18.4).

The pointer to the system table is in memory at a multiple of 4 MiB, with a signature and a checksum.
"""

import struct
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from trapline.errors import FaultError

from . import pe
from .firmware_volumes import file_names

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns bytes of physical memory, which UEFI maps at its own address. Raises FaultError."""

_SIGNATURE: Final = b"IBI SYST"
_STEP: Final = 4 << 20
_POINTER: Final = struct.Struct("<8sQI4x")
"""EFI_SYSTEM_TABLE_POINTER: signature, address, checksum."""
_CONFIGURATION_AT: Final = 104
"""In EFI_SYSTEM_TABLE: the number of its configuration tables, and their address."""
_MOST_TABLES: Final = 256
_ENTRY: Final = struct.Struct("<16sQ")
_DEBUG_IMAGES: Final = uuid.UUID("49152e77-1ada-4764-b7a2-7afefed95e8b").bytes_le
_HANDOFF_BLOCKS: Final = uuid.UUID("7739f24c-93d7-11d4-9a3a-0090273fc14d").bytes_le
_HEADER: Final = struct.Struct("<IIQ")
"""EFI_DEBUG_IMAGE_INFO_TABLE_HEADER: status, number of images, their address."""
_MOST_IMAGES: Final = 4096
_NORMAL: Final = 1
_IMAGE: Final = struct.Struct("<I4xQ")
"""EFI_DEBUG_IMAGE_INFO_NORMAL: type, loaded image protocol."""
_LOADED: Final = struct.Struct("<32xQ24xQQ")
"""EFI_LOADED_IMAGE_PROTOCOL: device path of the file, base and size of the image (UEFI 2.10, 9.1.1)."""
_LARGEST: Final = 1 << 30
_NODE: Final = struct.Struct("<BBH")
_MEDIA, _END = 4, 0x7F
_FILE_PATH, _FIRMWARE_FILE = 4, 6
"""Nodes of a device path: a file's name, a file in a firmware volume by its GUID (UEFI 2.10, 10.3.5)."""
_MOST_NODES: Final = 32
_LONGEST: Final = 1024


class Image(NamedTuple):
    """An image in memory."""

    name: str
    """The file's name; of one in firmware that of the file in the volume, or of its debug information, or its GUID."""
    base: int
    size: int
    module: str | None
    """The name of its debug information."""


class ImageTable:
    """The table in the memory of one machine."""

    def __init__(self, read: Read, end: int) -> None:
        """`end` is where memory ends."""
        self._read, self._end = read, end
        self._pointer: int | None = None
        self._entries = b""
        self._files: dict[bytes, str] = {}
        self.images: list[Image] = []
        """As they were when the table was last there."""

    def refresh(self) -> bool:
        """Read the images again if there are others; returns whether there are."""
        if self._pointer is None or _system_table(self._read, self._pointer) is None:
            self._pointer = next(
                (at for at in range(_STEP, self._end, _STEP) if _system_table(self._read, at) is not None), None
            )
        try:
            return self._pointer is not None and self._changed(self._pointer)
        except FaultError:
            return False

    def _changed(self, pointer: int) -> bool:
        read = self._read
        tables = _tables(read, _system_table(read, pointer) or 0)
        if _DEBUG_IMAGES not in tables:
            return False
        _, count, at = _HEADER.unpack(read(tables[_DEBUG_IMAGES], _HEADER.size))
        entries = read(at, 8 * min(count, _MOST_IMAGES))
        if entries == self._entries:
            return False
        if not self._files and _HANDOFF_BLOCKS in tables:
            self._files = file_names(read, tables[_HANDOFF_BLOCKS])
        places = [place for (place,) in struct.iter_unpack("<Q", entries) if place]
        found = [image for place in places if (image := self._image(place)) is not None]
        self._entries, self.images = entries, found
        return True

    def _image(self, entry: int) -> Image | None:
        read = self._read
        try:
            kind, protocol = _IMAGE.unpack(read(entry, _IMAGE.size))
            path, base, size = _LOADED.unpack(read(protocol, _LOADED.size))
            header = pe.find(read(base, min(size, pe.HEAD)))
            if kind != _NORMAL or header is None or not 0 < size <= _LARGEST:
                return None
            module = pe.debug_path(lambda at, length: read(base + at, length), header)
        except FaultError:
            return None
        module = module and module.replace("\\", "/").rpartition("/")[2]
        return Image(self._file_name(path) or module or "an image without a name", base, size, module)

    def _file_name(self, path: int) -> str | None:
        nodes = list(_nodes(self._read, path))
        text = "".join(body.decode("utf-16-le", "replace").rstrip("\0") for kind, body in nodes if kind == _FILE_PATH)
        if text:
            return text.replace("\\", "/").rpartition("/")[2]
        guid = next((body for kind, body in nodes if kind == _FIRMWARE_FILE and len(body) == 16), None)
        return None if guid is None else self._files.get(guid) or str(uuid.UUID(bytes_le=guid)).upper()


def _tables(read: Read, system_table: int) -> dict[bytes, int]:
    """Return the addresses of the configuration tables by GUID."""
    count, at = struct.unpack("<QQ", read(system_table + _CONFIGURATION_AT, 16))
    return dict(_ENTRY.iter_unpack(read(at, min(count, _MOST_TABLES) * _ENTRY.size)))


def _system_table(read: Read, pointer: int) -> int | None:
    try:
        found = read(pointer, _POINTER.size)
    except FaultError:
        return None
    signature, address, checksum = _POINTER.unpack(found)
    if signature != _SIGNATURE or zlib.crc32(found[:16] + bytes(8)) != checksum:
        return None
    return int(address)


def _nodes(read: Read, path: int) -> Iterator[tuple[int, bytes]]:
    """Yield the subtype and content of the nodes for media."""
    for _ in range(_MOST_NODES if path else 0):
        try:
            kind, subtype, length = _NODE.unpack(read(path, _NODE.size))
            if kind & _END == _END or not _NODE.size < length <= _LONGEST:
                return
            if kind == _MEDIA:
                yield subtype, read(path + _NODE.size, length - _NODE.size)
        except FaultError:
            return
        path += length
