import struct

import pytest

from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu import fw_cfg_dma
from trapline.processors.qemu.fw_cfg_dma import HIGH, LOW, PART, READ, SELECT, WRITE, FwCfgDma, kept_out, parts
from trapline.processors.qemu.guard import Access
from trapline.processors.qemu.layout import DMA_AT, SIZE

AT, RAM = 0x3000, 0x10000
BASE, NOTHING = 1 << 39, (1 << 40) - SIZE
SKIP = 1 << 2
DONE = bytes.fromhex("00000000")


def descriptor(control, length, address):
    return struct.pack(">IIQ", control, length, address)


def swapped(value):
    return int.from_bytes(value.to_bytes(4, "big"), "little")


@pytest.fixture
def ram():
    return ScriptedMemory(RAM)


@pytest.fixture
def start(shared, ram):
    """Return a function that starts a DMA as the guest does, and returns what QEMU is asked for, and its descriptor.

    QEMU says that it is done.
    """
    rules = FwCfgDma(shared, ram).rules

    def execute(access):
        steps, parts = rules[access.port](access), []
        seen = b""
        for part in steps:
            parts.append(part)
            if part.port == LOW:
                seen = bytes(shared.memory[DMA_AT : DMA_AT + 16])
                shared.memory[DMA_AT : DMA_AT + 4] = DONE
        return parts, seen

    def start(at):
        if at >> 32:
            assert execute(Access(HIGH, 4, swapped(at >> 32))) == ([], b"")
        return execute(Access(LOW, 4, swapped(at & 0xFFFF_FFFF)))

    start.execute = execute
    return start


def test_the_descriptor_is_copied_and_its_end_written_back(start, ram, shared):
    asked = descriptor(READ | SELECT, 4, 0x4000)
    ram.write(AT, asked)
    parts, seen = start(AT)
    place = shared.base + DMA_AT
    assert parts == [Access(HIGH, 4, swapped(place >> 32)), Access(LOW, 4, swapped(place & 0xFFFF_FFFF))]
    assert seen == asked
    assert ram.read(AT, 16) == DONE + asked[4:]


@pytest.mark.parametrize("at", [RAM, RAM - 8, 1 << 39, 0xFFFF_FFFF_FFFF_FFF8])
def test_one_that_is_not_in_ram_is_an_error(start, ram, at):
    assert start(at) == ([], b"")
    if at < RAM:
        assert ram.read(at, 4) == bytes((0, 0, 0, fw_cfg_dma.ERROR))


def test_the_high_half_counts_once(start, ram):
    ram.write(AT, descriptor(READ, 4, 0x4000))
    assert start(1 << 32 | AT) == ([], b"")
    assert start(AT)[0]


@pytest.mark.parametrize("port", [HIGH, LOW])
@pytest.mark.parametrize("access", [(1, 0), (2, 0x30), (4, None), (1, None)])
def test_other_accesses_are_executed(start, port, access):
    one = Access(port, *access)
    assert start.execute(one)[0] == [one]


@pytest.mark.parametrize("control", [READ, WRITE, READ | SELECT | 5 << 16])
@pytest.mark.parametrize(
    ("address", "length", "reaches"),
    [
        (0x4000, 0xFFFF_FFFF, False),
        (BASE - 4, 4, False),
        (BASE - 4, 5, True),
        (BASE, 1, True),
        (BASE + SIZE - 1, 1, True),
        (BASE + SIZE, 0xFFFF_FFFF, False),
        (BASE - 0x1000_0000, 0x2000_0000, True),
        ((1 << 64) - 1, 0xFFFF_FFFF, False),
    ],
)
def test_a_transfer_that_reaches_the_shared_memory_goes_where_there_is_none(control, address, length, reaches):
    found = struct.unpack(">IIQ", kept_out(descriptor(control, length, address), BASE, NOTHING))
    assert found == (control, length, NOTHING if reaches else address)


def test_one_that_wraps_reaches_it_as_well():
    asked = descriptor(READ, 0xFFFF_FFFF, (1 << 64) - 1)
    assert kept_out(asked, 0x8000_0000, NOTHING) == descriptor(READ, 0xFFFF_FFFF, NOTHING)


@pytest.mark.parametrize("control", [0, SKIP, SELECT])
def test_without_a_transfer_the_address_does_not_matter(control):
    asked = descriptor(control, 4, BASE)
    assert kept_out(asked, BASE, NOTHING) == asked


@pytest.mark.parametrize("control", [READ, READ | SELECT | 5 << 16])
@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (0, [0]),
        (PART, [PART]),
        (PART + 1, [PART, 1]),
        (3 * PART, [PART] * 3),
        (0xFFFF_FFFF, [PART] * 1023 + [PART - 1]),
    ],
)
def test_a_long_read_has_parts(control, length, lengths):
    found = [struct.unpack(">IIQ", part) for part in parts(descriptor(control, length, 0x4000))]
    assert [one[0] for one in found] == [control] + [READ] * (len(lengths) - 1)
    assert [one[1] for one in found] == lengths
    assert [one[2] for one in found] == [0x4000 + PART * number for number in range(len(lengths))]


@pytest.mark.parametrize("control", [0, SKIP, WRITE | SELECT])
def test_nothing_else_has(control):
    asked = descriptor(control, 0xFFFF_FFFF, 0x4000)
    assert list(parts(asked)) == [asked]


def test_an_error_of_one_part_is_that_of_the_whole(shared, ram):
    ram.write(AT, descriptor(READ, PART + 1, 0x4000))
    controls = iter([fw_cfg_dma.ERROR, 0])
    for part in FwCfgDma(shared, ram).rules[LOW](Access(LOW, 4, swapped(AT))):
        if part.port == LOW:
            shared.memory[DMA_AT : DMA_AT + 4] = next(controls).to_bytes(4, "big")
    assert ram.read(AT, 4) == fw_cfg_dma.ERROR.to_bytes(4, "big")
