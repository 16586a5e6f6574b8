"""ELF files without a boot protocol of their own: 64-bit ones entered in long mode, 32-bit ones in flat code."""

from __future__ import annotations

import sys
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from trapline.errors import GuestImageError
from trapline.machine.boot import Boot

if TYPE_CHECKING:
    from trapline.guests.formats.elf import ElfImage, Segment

    from .ram import Ram


_HIGHER_HALF: Final = {32: 0x8000_0000, 64: 0x8000_0000_0000}
"""By the file's bits: from here on addresses of kernels are virtual ones."""


def load_segments(image: ElfImage, content: bytes, ram: Ram) -> None:
    """Load the segments of the program headers at their physical addresses, but for notes where there is no RAM."""
    if not image.loaded:
        raise GuestImageError(f"{image.name} without a segment to load")
    notes = image.notes
    for segment in image.loaded:
        if segment.address + segment.memory_size > ram.size and _within(segment, notes):
            continue  # a build ID, say, for which the linker script has no place
        if segment.address >= _HIGHER_HALF[image.bits]:
            raise GuestImageError(
                f"{image.name} of the higher half: a segment is at the physical address {segment.address:#x}; give its "
                "segments physical addresses in the RAM (AT() in the linker script), or boot it by its own loader "
                "from an ISO or disk image"
            )
        data = content[segment.offset : segment.offset + segment.file_size]
        ram.load("a segment", segment.address, data, segment.memory_size)


def _within(segment: Segment, ranges: list[tuple[int, int]]) -> bool:
    place = bisect_right(ranges, (segment.offset, sys.maxsize)) - 1
    return place >= 0 and segment.offset + segment.file_size <= ranges[place][1]


def executable(image: ElfImage, content: bytes, ram: Ram) -> Boot:
    """Enter an ELF file at its entry."""
    load_segments(image, content, ram)
    ram.check_entry(image.entry)
    description = f"{image.name}, {image.bits}-bit code, entry at {image.entry:#x}"
    return Boot("ELF", description, ram.loads, ram.block(image.bits).enter(image.entry))
