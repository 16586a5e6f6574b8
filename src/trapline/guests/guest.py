"""What boots: a guest and its kind."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from .formats.elf import ElfImage
from .formats.multiboot import MultibootHeader


class GuestKind(Enum):
    """What a guest file is, and so how it has to be booted."""

    BZIMAGE = "bzImage"
    MULTIBOOT = "multiboot"
    PVH = "PVH"
    ISO = "ISO 9660"
    DISK = "disk"
    FLOPPY = "floppy"
    ELF = "ELF"
    EFI = "EFI program"
    FOLDER = "EFI folder"
    RAW = "raw"


MEDIA: Final = {"floppy": GuestKind.FLOPPY, "disk": GuestKind.DISK, "cdrom": GuestKind.ISO}
"""By the user's name."""
MEDIA_NAMES: Final = {GuestKind.FLOPPY: "floppy", GuestKind.DISK: "hard disk", GuestKind.ISO: "CD"}


@dataclass(frozen=True, slots=True)
class Guest:
    """What boots, as it was when it was recognised: its file is opened and parsed once."""

    path: Path
    """The file; of an image in memory a name to show."""
    kind: GuestKind
    description: str
    """What it is, on one line for the user."""
    content: bytes = field(repr=False)
    """The image; of a large ELF file as far as it is loaded, of a bzImage, an ISO image, a disk and a floppy only the
    first bytes.
    """
    image: ElfImage | None = None
    """Of an ELF file: its headers."""
    header: MultibootHeader | None = None
    """Of a multiboot kernel."""
    in_memory: bool = False
    """The image is not in a file."""
    format: str = "raw"
    """How a disk or floppy is stored, by QEMU's name."""
    uefi: bool = False
    """UEFI firmware boots it, and a BIOS does not."""
    cpus: int = 1
    """How many CPUs it needs."""
    whole: bool = False
    """Of an ELF file: `content` is all of it, symbols too."""
