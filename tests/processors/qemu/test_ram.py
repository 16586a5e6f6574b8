import pytest

from trapline.errors import FaultError
from trapline.processors.qemu.ram import Ram, below_4g

MIB, GIB = 1 << 20, 1 << 30
BIOS = bytes(range(256)) * 256


class Big:
    """Stands for memory that nobody wants to allocate: remembers the slices that were asked for."""

    def __init__(self, size):
        self._size = size
        self.written = {}

    def __len__(self):
        return self._size

    def __getitem__(self, part):
        assert 0 <= part.start <= part.stop <= self._size
        return f"{part.start:#x}".encode()

    def __setitem__(self, part, data):
        assert part.stop - part.start == len(data)
        self.written[part.start] = data


@pytest.mark.parametrize(
    ("machine", "size", "low"),
    [
        ("", 128 * MIB, 128 * MIB),
        ("pc", 3 * GIB, 3 * GIB),
        ("pc", 3584 * MIB - MIB, 3584 * MIB - MIB),
        ("pc", 3584 * MIB, 3 * GIB),
        ("pc-i440fx-7.2", 8 * GIB, 3 * GIB),
        ("q35", 2 * GIB, 2 * GIB),
        ("q35", 2816 * MIB - MIB, 2816 * MIB - MIB),
        ("q35", 2816 * MIB, 2 * GIB),
        ("pc-q35-7.2", 8 * GIB, 2 * GIB),
    ],
)
def test_how_much_lies_below_4_gib(machine, size, low):
    assert below_4g(machine, size) == low


def test_ram_is_read_and_written_where_it_is():
    memory = memoryview(bytearray(4 * MIB))
    ram = Ram(memory, "pc", BIOS)
    assert ram.size == 4 * MIB
    ram.write(0x7C00, b"boot")
    assert ram.read(0x7C00, 4) == bytes(memory[0x7C00:0x7C04]) == b"boot"
    assert ram.read(4 * MIB - 2, 2) == b"\0\0"


def test_the_bios_is_read_below_4_gib():
    ram = Ram(memoryview(bytearray(MIB)), "pc", BIOS)
    assert ram.read((1 << 32) - 16, 16) == BIOS[-16:]
    assert ram.read((1 << 32) - len(BIOS), 4) == BIOS[:4]
    with pytest.raises(FaultError):
        ram.write((1 << 32) - 16, b"x")


def test_ram_above_4_gib_follows_the_hole():
    memory = Big(8 * GIB)
    ram = Ram(memory, "pc", BIOS)
    assert ram.read(1 << 32, 8) == hex(3 * GIB).encode()
    assert ram.read(9 * GIB - 8, 8) == hex(8 * GIB - 8).encode()
    ram.write((1 << 32) + 0x1000, b"high")
    assert memory.written == {3 * GIB + 0x1000: b"high"}


@pytest.mark.parametrize(
    ("gpa", "size"),
    [(4 * MIB, 1), (4 * MIB - 1, 2), (0xFEE0_0000, 4), (1 << 32, 1), ((1 << 32) - 2, 4), (1 << 63, 8)],
)
def test_where_there_is_nothing_it_says_so(gpa, size):
    ram = Ram(memoryview(bytearray(4 * MIB)), "pc", BIOS)
    for access in (lambda: ram.read(gpa, size), lambda: ram.write(gpa, bytes(size))):
        with pytest.raises(FaultError, match=f"{gpa:#x}: there is no memory"):
            access()
