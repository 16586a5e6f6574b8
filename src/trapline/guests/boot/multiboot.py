"""Multiboot 1: what a loader does (specification 0.6.96, 3.2 "Machine state", 3.3 "Boot information format")."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from trapline.errors import GuestImageError
from trapline.machine.boot import Boot

from .executable import load_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trapline.guests.formats.elf import ElfImage
    from trapline.guests.formats.multiboot import MultibootHeader

    from .ram import Ram

BOOT_MAGIC: Final = 0x2BAD_B002
_LOADER: Final = b"trapline"

_MEMORY, _COMMAND_LINE, _MODULES, _MAP, _LOADER_NAME = (1 << bit for bit in (0, 2, 3, 6, 9))
# flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms, mmap_length, mmap_addr,
# drives_length, drives_addr, config_table, boot_loader_name, apm_table; no VBE, no framebuffer
_INFORMATION: Final = struct.Struct("<7I16x7I48x")
_MODULE: Final = struct.Struct("<4I")
_REGION: Final = struct.Struct("<IQQI")
_REGION_SIZE: Final = _REGION.size - 4  # the size does not count itself
_AVAILABLE, _RESERVED = 1, 2


class Module(NamedTuple):
    """A file that goes with the kernel, and the string that goes with it (3.3, mods_addr)."""

    string: str
    content: bytes


def multiboot(
    header: MultibootHeader,
    image: ElfImage | None,
    content: bytes,
    ram: Ram,
    command_line: str,
    modules: Sequence[Module],
) -> Boot:
    """Load a kernel by its header's addresses, else by its ELF program headers, and enter it in 32-bit code."""
    if header.has_addresses:
        _load_flat(header, content, ram)
        entry = header.entry
    else:
        assert image is not None, "a header without addresses is accepted in an ELF file only"
        load_segments(image, content, ram)
        entry = image.entry
    ram.check_entry(entry)
    places = [ram.load_above(f"module {module.string}", module.content) for module in modules]

    def information(gpa: int) -> bytes:
        return _information(gpa, ram, command_line, [module.string for module in modules], places)

    block = ram.block(32, information)
    description = f"multiboot kernel, 32-bit code, entry at {entry:#x}"
    return Boot("multiboot", description, ram.loads, block.enter(entry, rax=BOOT_MAGIC, rbx=block.information))


def _load_flat(header: MultibootHeader, content: bytes, ram: Ram) -> None:
    start = header.offset - (header.header_address - header.load_address)
    if header.header_address < header.load_address or start < 0:
        raise GuestImageError(
            f"multiboot header at {header.offset:#x} with addresses that do not fit the file: "
            f"header at {header.header_address:#x}, load at {header.load_address:#x}"
        )
    load_end = header.load_end or header.load_address + len(content) - start
    bss_end = header.bss_end or load_end
    if not header.load_address <= load_end <= bss_end:
        raise GuestImageError(
            f"multiboot header with addresses in disorder: load {header.load_address:#x}, "
            f"end of load {load_end:#x}, end of bss {bss_end:#x}"
        )
    size = load_end - header.load_address
    if start + size > len(content):
        raise GuestImageError(
            f"multiboot image cut short: its header promises {start + size} bytes, the file has {len(content)}"
        )
    ram.load("the image", header.load_address, content[start : start + size], bss_end - header.load_address)


def _information(
    gpa: int, ram: Ram, command_line: str, strings: Sequence[str], places: Sequence[tuple[int, int]]
) -> bytes:
    regions = b"".join(
        _REGION.pack(_REGION_SIZE, start, size, _AVAILABLE if available else _RESERVED)
        for start, size, available in ram.regions
    )
    regions_at = gpa + _INFORMATION.size
    modules_at = regions_at + len(regions)
    texts = [_LOADER, _encoded(command_line), *map(_encoded, strings)]
    texts_at = [modules_at + _MODULE.size * len(strings)]
    for text in texts:
        texts_at.append(texts_at[-1] + len(text) + 1)
    modules = b"".join(
        _MODULE.pack(start, end, text, 0) for (start, end), text in zip(places, texts_at[2:], strict=False)
    )
    fixed = _INFORMATION.pack(
        _MEMORY | _COMMAND_LINE | _MODULES | _MAP | _LOADER_NAME,
        ram.lower_size >> 10,
        ram.upper_size >> 10,
        0,
        texts_at[1],
        len(strings),
        modules_at,
        len(regions),
        regions_at,
        0,
        0,
        0,
        texts_at[0],
        0,
    )
    return fixed + regions + modules + b"".join(text + b"\0" for text in texts)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
