"""The images of a UEFI guest, in memory that is made up."""

import struct
import uuid
import zlib

import pytest

from tools.file_fuzzing.images import efi_program
from trapline.errors import FaultError
from trapline.symbols import Names
from trapline.symbols.efi_images import ImageTable
from trapline.symbols.files import Symbols
from trapline.symbols.loaded import LoadedImages
from trapline.symbols.ranges import Function, Ranges

MIB = 1 << 20
POINTER, SYSTEM, CONFIG, HEADER, ENTRIES, BLOCKS, VOLUME = 8 * MIB, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x20000
DRIVER = uuid.UUID("1a1e4886-9517-440e-9fde-3be44cee2136")
NAMELESS = uuid.UUID("00000000-1111-2222-3333-444444444444")
DEBUG_TABLE, BLOCKS_TABLE = (
    uuid.UUID(text) for text in ("49152e77-1ada-4764-b7a2-7afefed95e8b", "7739f24c-93d7-11d4-9a3a-0090273fc14d")
)


class Memory:
    def __init__(self):
        self.data = bytearray(12 * MIB)
        self.images = []
        pointer = struct.pack("<8sQ", b"IBI SYST", SYSTEM)
        self.put(POINTER, pointer + struct.pack("<I", zlib.crc32(pointer + bytes(8))))
        self.put(SYSTEM + 104, struct.pack("<QQ", 2, CONFIG))
        self.put(CONFIG, DEBUG_TABLE.bytes_le + struct.pack("<Q", HEADER))
        self.put(CONFIG + 24, BLOCKS_TABLE.bytes_le + struct.pack("<Q", BLOCKS))
        name = b"\x1a\0\0\x15" + "CpuDxe\0".encode("utf-16-le")
        raw = b"\x06\0\0\x19" + b"ab"
        body = raw.ljust(8, b"\0") + name
        file = DRIVER.bytes_le + bytes((0, 0, 7, 0)) + (24 + len(body)).to_bytes(3, "little") + b"\xf8" + body
        volume = bytearray(0x28) + b"_FVH" + bytes(4) + struct.pack("<H2xH", 0x48, 0) + bytes(0x12)
        self.put(VOLUME, bytes(volume) + file + b"\xff" * 64)
        self.put(BLOCKS, struct.pack("<HH4xQQ", 5, 24, VOLUME, 0x1000) + struct.pack("<HH4x", 0xFFFF, 8))

    def put(self, at, data):
        self.data[at : at + len(data)] = data

    def read(self, at, size):
        if at + size > len(self.data):
            raise FaultError(at)
        return bytes(self.data[at : at + size])

    def load(self, path, base, size=0x4000, kind=1):
        """Load an image; `path` is its device path."""
        number = len(self.images)
        entry, protocol, place = (at + 0x100 * number for at in (0x8000, 0xA000, 0xC000))
        self.put(place, path + b"\x7f\xff\x04\0")
        self.put(protocol, struct.pack("<32xQ24xQQ", place, base, size))
        self.put(entry, struct.pack("<I4xQ", kind, protocol))
        program = bytearray(efi_program())
        struct.pack_into("<H", program, 0x80 + 24, 0x20B)
        self.put(base, bytes(program))
        self.images.append(entry)
        self.put(ENTRIES, struct.pack(f"<{number + 1}Q", *self.images))
        self.put(HEADER, struct.pack("<IIQ", 0, number + 1, ENTRIES))


def file_path(*names):
    nodes = (name.encode("utf-16-le") + b"\0\0" for name in names)
    return b"\x01\x01\x06\0\0\0" + b"".join(struct.pack("<BBH", 4, 4, 4 + len(node)) + node for node in nodes)


def firmware_file(guid):
    return struct.pack("<BBH", 4, 6, 20) + guid.bytes_le


@pytest.fixture
def memory():
    return Memory()


@pytest.fixture
def table(memory):
    return ImageTable(memory.read, len(memory.data))


def shown(table):
    return [(image.name, image.base, image.size) for image in table.images]


def test_images_are_named_by_their_files_and_by_the_volumes_of_the_firmware(memory, table):
    memory.load(firmware_file(DRIVER), 0x10_0000)
    memory.load(firmware_file(NAMELESS), 0x11_0000)
    memory.load(file_path("\\EFI\\BOOT", "\\grubx64.efi"), 0x12_0000, 0x8000)
    memory.load(b"", 0x13_0000)
    assert table.refresh()
    assert shown(table) == [
        ("CpuDxe", 0x10_0000, 0x4000),
        (str(NAMELESS).upper(), 0x11_0000, 0x4000),
        ("grubx64.efi", 0x12_0000, 0x8000),
        ("an image without a name", 0x13_0000, 0x4000),
    ]


def test_it_is_read_again_when_it_changes(memory, table):
    assert not table.refresh() or not table.images
    memory.load(firmware_file(DRIVER), 0x10_0000)
    assert table.refresh()
    assert not table.refresh()
    memory.load(file_path("x.efi"), 0x12_0000)
    assert table.refresh()
    assert len(table.images) == 2


def test_what_is_not_an_image_is_left_out(memory, table):
    memory.load(file_path("wrong kind"), 0x10_0000, kind=2)
    memory.load(file_path("huge"), 0x11_0000, size=1 << 40)
    memory.load(file_path("beyond"), len(memory.data) - 0x800)
    memory.load(file_path("gone"), 0x12_0000)
    memory.put(0x12_0000, bytes(4))
    assert table.refresh()
    assert table.images == []


@pytest.mark.parametrize("at", [POINTER, POINTER + 8, POINTER + 16])
def test_a_pointer_without_its_checksum_is_none(memory, table, at):
    memory.load(firmware_file(DRIVER), 0x10_0000)
    memory.data[at] ^= 1
    assert not table.refresh()


@pytest.mark.parametrize("size", [0x2000, 0x5008, 0x8001, 0xC001, 0x2_0100])
def test_tables_that_lead_out_of_memory_raise_nothing(memory, size):
    memory.load(firmware_file(DRIVER), 0x1_0000)

    def read(at, length):
        if at < POINTER and at + length > size:
            raise FaultError(at)
        return memory.read(at, length)

    ImageTable(read, len(memory.data)).refresh()


def own_file(name, link_base=0):
    return Symbols(name, Ranges([Function(link_base + 0x1000, 0x20, "efi_main", 0)]), link_base=link_base)


def test_files_go_where_their_image_is_and_the_guests_program_has_its_name(memory):
    memory.load(file_path("\\EFI\\BOOT\\BOOTX64.EFI"), 0x12_0000)
    memory.load(firmware_file(DRIVER), 0x10_0000)
    program, driver, other = own_file("/a/x.efi", 0x40_0000), own_file("CpuDxe.debug"), own_file("kernel.elf")
    names = Names([other], movable=[program, driver, other])
    images = LoadedImages(names, "x.efi")
    images.follow(memory.read, len(memory.data))
    assert names.text(0x12_1004) == "efi_main+0x4"
    assert names.text(0x12_2000) == "x.efi+0x2000"
    assert names.text(0x10_1001) == "efi_main+0x1"
    assert names.text(0x10_0000) == "CpuDxe+0x0"
    assert names.text(0x1001) == "efi_main+0x1"  # of the file that is nowhere else
    assert (program.slide, other.slide) == (0x12_0000 - 0x40_0000, 0)
    images.end()
    assert images.over
    assert names.text(0x12_1004) is names.text(0x10_0000) is None
