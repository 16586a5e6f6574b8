"""Guest images, each built by code from the fields that its format demands."""

import struct
from collections.abc import Sequence
from typing import Final

MULTIBOOT_MAGIC: Final = 0x1BADB002
PVH_ENTRY: Final = struct.pack("<Q", 0x1000200)


def bzimage(
    version: int = 0x20F,
    kernel: bytes = b"6.1.0-test (builder@host) #1 SMP",
    setup_sectors: int = 3,
    paragraphs: int = 64,
    loadflags: int = 1,
) -> bytes:
    """Build a bzImage without a kernel."""
    size = (setup_sectors + 1) * 512
    image = bytearray(size + paragraphs * 16)
    image[0x1F1] = setup_sectors
    struct.pack_into("<I", image, 0x1F4, paragraphs)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<H", image, 0x20E, 0x200)
    image[0x211] = loadflags
    image[0x400 : 0x400 + len(kernel)] = kernel
    return bytes(image)


def multiboot_header(flags: int = 0, *addresses: int) -> bytes:
    """Build a multiboot 1 header."""
    checksum = -(MULTIBOOT_MAGIC + flags) & 0xFFFFFFFF
    return struct.pack(f"<{3 + len(addresses)}I", MULTIBOOT_MAGIC, flags, checksum, *addresses)


def note(kind: int = 18, descriptor: bytes = PVH_ENTRY, name: bytes = b"Xen\0") -> bytes:
    """Build an ELF note: by default the PVH entry."""
    padded = -len(name) % 4, -len(descriptor) % 4
    header = struct.pack("<III", len(name), len(descriptor), kind)
    return header + name + bytes(padded[0]) + descriptor + bytes(padded[1])


def elf(
    bits: int = 32,
    machine: int | None = None,
    content: bytes = b"",
    notes: bytes = b"",
    kind: int = 2,
    *,
    entry: int = 0x100000,
    virtual: int = 0x100000,
    gpa: int = 0x100000,
    more: int = 0,
    noted: int = 4,
) -> bytes:
    """Build an ELF file of two segments: `content` at `gpa` with `more` zeros after it, and `notes`."""
    machine = machine or (3 if bits == 32 else 62)
    header, size = (52, 32) if bits == 32 else (64, 56)
    start = header + 2 * size
    load = (1, 5, start, virtual, gpa, len(content), len(content) + more)
    other = (noted, 4, start + len(content), 0, 0, len(notes), len(notes))
    image = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    word = "I" if bits == 32 else "Q"
    image += struct.pack(
        f"<HHI{word}{word}{word}IHHHHHH", kind, machine, 1, entry, header, 0, 0, header, size, 2, 0, 0, 0
    )
    for segment, flags, *places in (load, other):
        if bits == 32:
            image += struct.pack("<8I", segment, *places, flags, 4)
        else:
            image += struct.pack("<IIQQQQQQ", segment, flags, *places, 4)
    return image + content + notes


def iso(label: bytes = b"TRAPLINE", *, el_torito: bool = True, hybrid: bool = False) -> bytes:
    """Build an ISO 9660 image without files."""
    image = bytearray(20 * 2048)
    image[0x8000:0x8007] = b"\x01CD001\x01"
    image[0x8028:0x8048] = label.ljust(32)
    if el_torito:
        image[0x8800:0x8820] = b"\0CD001\x01EL TORITO SPECIFICATION".ljust(32, b"\0")
    if hybrid:
        image[510:512] = b"\x55\xaa"
    return bytes(image)


def disk(size: int = 1 << 20, partitions: Sequence[tuple[int, int, int, int]] = (), *, gpt: bool = False) -> bytes:
    """Build a disk of partitions: (status, type, start, length)."""
    image = bytearray(size)
    for number, (status, kind, start, length) in enumerate(partitions):
        struct.pack_into("<B3xB3xII", image, 446 + 16 * number, status, kind, start, length)
    image[510:512] = b"\x55\xaa"
    if gpt:
        image[512:520] = b"EFI PART"
    return bytes(image)


def efi_program(subsystem: int = 10, machine: int = 0x8664) -> bytes:
    """Build an EFI program without code."""
    image = bytearray(0x200)
    image[:2] = b"MZ"
    struct.pack_into("<I", image, 0x3C, 0x80)
    image[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<H", image, 0x84, machine)
    struct.pack_into("<H", image, 0x80 + 0x5C, subsystem)
    return bytes(image)
