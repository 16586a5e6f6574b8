"""ELF files without a boot protocol of their own: 64-bit ones entered in long mode, 32-bit ones in flat code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trapline.errors import GuestImageError
from trapline.machine.boot import Boot

if TYPE_CHECKING:
    from trapline.guests.formats.elf import ElfImage

    from .ram import Ram


def load_segments(image: ElfImage, content: bytes, ram: Ram) -> None:
    """Load the segments of the program headers at their physical addresses."""
    if not image.loaded:
        raise GuestImageError(f"{image.name} without a segment to load")
    for segment in image.loaded:
        data = content[segment.offset : segment.offset + segment.file_size]
        ram.load("a segment", segment.address, data, segment.memory_size)


def executable(image: ElfImage, content: bytes, ram: Ram) -> Boot:
    """Enter an ELF file at its entry."""
    load_segments(image, content, ram)
    ram.check_entry(image.entry)
    description = f"{image.name}, {image.bits}-bit code, entry at {image.entry:#x}"
    return Boot("ELF", description, ram.loads, ram.block(image.bits).enter(image.entry))
