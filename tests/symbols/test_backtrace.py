import struct

from hypothesis import given
from hypothesis import strategies as st

from trapline.symbols import Frame, backtrace
from trapline.symbols.backtrace import stack_values

BASE = 0x9000


def reader(memory, base=BASE):
    return lambda address, size: memory[address - base :][:size] if address >= base else b""


def test_frames_are_followed():
    memory = struct.pack("<8Q", 0xAA, BASE + 0x18, 0x1111, BASE + 0x30, 0x2222, 0xBB, 0, 0x3333)
    frames = backtrace(reader(memory), BASE + 8, BASE, 64)
    assert frames == [Frame(0x1111, BASE + 8), Frame(0x2222, BASE + 0x18), Frame(0x3333, BASE + 0x30)]


def test_32_bits():
    memory = struct.pack("<4I", BASE + 8, 0x1111, 0, 0x2222)
    assert [frame.address for frame in backtrace(reader(memory), BASE, BASE, 32)] == [0x1111, 0x2222]


def test_it_ends_where_no_code_is():
    memory = struct.pack("<4Q", BASE + 16, 0x1111, BASE + 0x20, 0x2222)
    assert len(backtrace(reader(memory), BASE, BASE, 64, lambda address: address == 0x1111)) == 1
    assert backtrace(reader(memory), BASE, BASE, 64, lambda address: False) == []


def test_a_pointer_that_is_none():
    memory = struct.pack("<4Q", BASE, 0x1111, BASE, 0x2222)
    assert len(backtrace(reader(memory), BASE, BASE, 64)) == 1  # one that points at itself
    for pointer in (0, BASE - 8, BASE + 1, BASE + (1 << 30), (1 << 64) - 8):
        assert backtrace(reader(memory), pointer, BASE, 64) == []


@given(
    st.binary(max_size=400),
    st.integers(0, (1 << 64) - 1) | st.integers(BASE, BASE + 400),
    st.sampled_from([16, 32, 64]),
)
def test_any_memory_has_an_end(memory, pointer, bits):
    frames = backtrace(reader(memory), pointer, BASE, bits)
    pointers = [frame.pointer for frame in frames]
    assert pointers == sorted(set(pointers))
    assert len(frames) <= 32


def test_the_words_of_a_stack():
    memory = struct.pack("<3Q", 1, 2, 3)
    assert stack_values(reader(memory), BASE + 8, 64) == [2, 3]
    assert stack_values(reader(memory), BASE, 32, 3) == [1, 0, 2]
    assert stack_values(reader(memory), BASE + 20, 64) == []
