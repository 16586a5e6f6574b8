"""What boots: a guest and its kind."""

from enum import Enum
from pathlib import Path
from typing import NamedTuple

from trapline.errors import GuestImageError


class GuestKind(Enum):
    """What a guest file is, and so how it has to be booted."""

    BZIMAGE = "bzImage"
    MULTIBOOT = "multiboot"
    PVH = "PVH"
    ISO = "ISO 9660"
    DISK = "disk"
    FLOPPY = "floppy"
    ELF = "ELF"
    RAW = "raw"


class Guest(NamedTuple):
    """What boots: where it is, what it is, and that in a line for the user."""

    path: Path
    """The file, or a name to show where `content` is given."""
    kind: GuestKind
    description: str
    content: bytes | None = None
    """An image that is not a file."""

    def read(self, size: int = -1) -> bytes:
        """Return the image, or its first `size` bytes; raise GuestImageError where it cannot be read."""
        if self.content is not None:
            return self.content if size < 0 else self.content[:size]
        try:
            with self.path.open("rb") as file:
                return file.read(size)
        except OSError as error:
            raise GuestImageError(f"cannot be read: {error.strerror}") from error
