"""Guest images, each built by code from the fields that its format demands."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

MULTIBOOT_MAGIC = 0x1BADB002
PVH_ENTRY = struct.pack("<Q", 0x1000200)


def bzimage(version=0x20F, kernel=b"6.1.0-test (builder@host) #1 SMP", setup_sectors=3, paragraphs=64, loadflags=1):
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


def multiboot_header(flags=0, *addresses):
    checksum = -(MULTIBOOT_MAGIC + flags) & 0xFFFFFFFF
    return struct.pack(f"<{3 + len(addresses)}I", MULTIBOOT_MAGIC, flags, checksum, *addresses)


def note(kind=18, descriptor=PVH_ENTRY, name=b"Xen\0"):
    padded = -len(name) % 4, -len(descriptor) % 4
    header = struct.pack("<III", len(name), len(descriptor), kind)
    return header + name + bytes(padded[0]) + descriptor + bytes(padded[1])


def elf(
    bits=32,
    machine=None,
    content=b"",
    notes=b"",
    kind=2,
    *,
    entry=0x100000,
    virtual=0x100000,
    gpa=0x100000,
    more=0,
    noted=4,
):
    """Build an ELF file of two segments: `content` at `gpa` with `more` zeros behind, and `notes`."""
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


def iso(label=b"TRAPLINE", el_torito=True, hybrid=False):
    image = bytearray(20 * 2048)
    image[0x8000:0x8007] = b"\x01CD001\x01"
    image[0x8028:0x8048] = label.ljust(32)
    if el_torito:
        image[0x8800:0x8820] = b"\0CD001\x01EL TORITO SPECIFICATION".ljust(32, b"\0")
    if hybrid:
        image[510:512] = b"\x55\xaa"
    return bytes(image)


def disk(size=1 << 20, partitions=(), gpt=False):
    image = bytearray(size)
    for number, (status, kind, start, length) in enumerate(partitions):
        struct.pack_into("<B3xB3xII", image, 446 + 16 * number, status, kind, start, length)
    image[510:512] = b"\x55\xaa"
    if gpt:
        image[512:520] = b"EFI PART"
    return bytes(image)


def efi_program(subsystem=10):
    image = bytearray(0x200)
    image[:2] = b"MZ"
    struct.pack_into("<I", image, 0x3C, 0x80)
    image[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<H", image, 0x80 + 0x5C, subsystem)
    return bytes(image)


@pytest.fixture(scope="session")
def build():
    functions = (bzimage, multiboot_header, note, elf, iso, disk, efi_program)
    return SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture
def file(tmp_path):
    """Write bytes to a file and return its path."""

    def write(content, name="guest.img"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
