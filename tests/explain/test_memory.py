import pytest

from trapline.arch.paging import PAGE
from trapline.errors import FaultError
from trapline.explain.memory import MissingMemory, PartialMemory, partial_memory

ALL_ONES = (1 << 64) - 1


def test_values_of_every_size_and_alignment():
    data = bytes(range(0x20))
    memory = PartialMemory({at: int.from_bytes(data[at : at + 8], "little") for at in range(0, 0x20, 8)})
    for at in range(0x10):
        assert memory.u64(at) == int.from_bytes(data[at : at + 8], "little")
        assert memory.u32(at) == int.from_bytes(data[at : at + 4], "little")
        assert memory.read(at, 15) == int.from_bytes(data[at : at + 15], "little")


@pytest.mark.parametrize("read", [lambda memory: memory.u64(0x14), lambda memory: memory.u32(0x8)])
def test_memory_that_was_not_read_is_missing(read):
    memory = PartialMemory({0x10: 0x1122334455667788})
    with pytest.raises(MissingMemory, match="does not include the memory at 0x"):
        read(memory)


def test_changes_are_seen_in_a_copy():
    memory = PartialMemory({0x10: 0x1122334455667788, 0x18: 0})
    changed = memory.changed([(0x11, b"\xaa\xbb"), (0x17, b"\xcc\xdd")])
    assert (changed.u64(0x10), changed.u64(0x18)) == (0xCC22334455BBAA88, 0xDD)
    assert (memory.u64(0x10), memory.u64(0x18)) == (0x1122334455667788, 0)


def test_where_there_is_no_memory_nothing_is_stored():
    nowhere = PartialMemory({0: None}).changed([(0, b"\x00")])
    assert (nowhere.u64(0), nowhere.u32(4), nowhere.qword(0)) == (ALL_ONES, 0xFFFF_FFFF, None)


class Guest:
    """Memory that counts up at each read."""

    def __init__(self, size=16):
        self.size, self.reads = size, 0

    def read(self, gpa, size):
        if gpa + size > self.size:
            raise FaultError(gpa)
        self.reads += 1
        return self.reads.to_bytes(size, "little")


def test_each_page_of_a_guest_is_read_once():
    guest = Guest(PAGE + 16)
    memory = partial_memory(guest)
    assert [memory.u64(gpa) for gpa in (8, 0, PAGE - 8)] == [0, 1, 0]
    assert guest.reads == 1
    assert [memory.u64(PAGE + 8), memory.u64(PAGE + 16)] == [2, ALL_ONES]
    assert memory.qwords.keys() == {8, 0, PAGE - 8, PAGE + 8, PAGE + 16}


def test_each_value_of_a_guest_is_read_once():
    memory = partial_memory(Guest())
    assert [memory.u64(8), memory.u64(0), memory.u64(8)] == [1, 2, 1]
    assert memory.u64(0x10) == ALL_ONES
    memory.detach()
    assert memory.qwords == {8: 1, 0: 2, 0x10: None}
    with pytest.raises(MissingMemory):
        memory.u64(0x18)
