"""PVH, Xen's direct boot: the 32-bit entry of a note, EBX = hvm_start_info (public/arch-x86/hvm/start_info.h)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from trapline.machine.boot import Boot

from .executable import load_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trapline.guests.formats.elf import ElfImage

    from .multiboot import Module
    from .ram import Ram

MAGIC: Final = 0x336E_C578
_VERSION: Final = 1
# magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr, memmap_entries
_START_INFO: Final = struct.Struct("<4I4QI4x")
_MODULE: Final = struct.Struct("<QQQ8x")
_REGION: Final = struct.Struct("<QQI4x")
_RAM, _RESERVED = 1, 2


def pvh(
    image: ElfImage, entry: int, content: bytes, ram: Ram, command_line: str | None, modules: Sequence[Module]
) -> Boot:
    """Load a kernel by its program headers and enter it as its note demands."""
    load_segments(image, content, ram)
    ram.check_entry(entry)
    places = [ram.load_above(f"module {module.string}", module.content) for module in modules]

    def information(gpa: int) -> bytes:
        return _start_info(gpa, ram, command_line, places)

    block = ram.block(32, information)
    description = f"PVH kernel, 32-bit code, entry at {entry:#x}"
    return Boot("PVH", description, ram.loads, block.enter(entry, rbx=block.information))


def _start_info(gpa: int, ram: Ram, command_line: str | None, places: Sequence[tuple[int, int]]) -> bytes:
    regions = b"".join(
        _REGION.pack(start, size, _RAM if available else _RESERVED) for start, size, available in ram.regions
    )
    modules = b"".join(_MODULE.pack(start, end - start, 0) for start, end in places)
    regions_at = gpa + _START_INFO.size
    modules_at = regions_at + len(regions)
    text = b"" if command_line is None else command_line.encode("utf-8", "surrogateescape") + b"\0"
    fixed = _START_INFO.pack(
        MAGIC,
        _VERSION,
        0,
        len(places),
        modules_at if places else 0,
        modules_at + len(modules) if text else 0,
        0,
        regions_at,
        len(ram.regions),
    )
    return fixed + regions + modules + text
