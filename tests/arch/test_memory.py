import pytest

from trapline.arch.memory import Overlay, ReaderMemory, open_bus
from trapline.errors import FaultError

BYTES = bytes(range(1, 33))


def read(gpa, size):
    if gpa + size > len(BYTES):
        raise FaultError(gpa, "there is no memory")
    return BYTES[gpa : gpa + size]


def test_integers_are_little_endian_at_any_address():
    memory = ReaderMemory(read)
    assert memory.u32(1) == 0x05040302
    assert memory.u64(0) == 0x0807060504030201


def test_where_there_is_no_memory():
    with pytest.raises(FaultError):
        ReaderMemory(read).u64(28)
    assert ReaderMemory(open_bus(read)).u64(28) == 0xFFFF_FFFF_FFFF_FFFF


def test_stores_lie_on_top_and_reach_nothing():
    below = ReaderMemory(read)
    memory = Overlay(below)
    memory.store([(2, b"\xaa\xbb"), (3, b"\xcc")])
    assert memory.u32(0) == 0xCCAA0201
    assert memory.u64(3) == 0x0B0A0908070605CC
    assert below.u32(0) == 0x04030201
