import ctypes

import pytest

from trapline.arch.layout import (
    Array,
    Structure,
    at,
    layout,
    leaves,
    offset_of,
    size_of,
    u8,
    u16,
    u32,
    u64,
    zero,
)


@layout(size=0x10)
class Inner(Structure):
    low: u32 = at(0x4)
    high: u64 = at(0x8)


@layout(size=0x40)
class Outer(Structure):
    flag: u8 = at(0x1)
    inner: Inner = at(0x8)
    many: Array[Inner] = at(0x18, count=2)
    text: Array[u8] = at(0x38, count=3)


def test_widths_and_offsets():
    assert (Outer.flag.offset, Outer.inner.offset, Outer.many.offset) == (1, 8, 0x18)
    assert ctypes.sizeof(Outer) == size_of(Outer) == 0x40
    assert size_of(Outer, "many") == 0x20
    assert size_of(Outer, "inner.low") == 4


def test_gaps_are_named_by_their_offset():
    names = [name for name, _ in Outer._fields_]
    assert names == [
        "reserved_0x000",
        "flag",
        "reserved_0x002",
        "inner",
        "many",
        "text",
        "reserved_0x03b",
    ]


def test_fields_may_be_declared_in_any_order():
    @layout(size=4)
    class Backwards(Structure):
        second: u16 = at(2)
        first: u16 = at(0)

    assert offset_of(Backwards, "second") == 2


def test_a_view_shares_its_memory():
    memory = bytearray(0x80)
    view = Outer.from_buffer(memory, 0x20)
    view.inner.high = 0x1122334455667788
    view.many[1].low = 7
    assert memory[0x30:0x38] == bytes.fromhex("8877665544332211")
    assert memory[0x20 + 0x18 + 0x10 + 4] == 7
    memory[0x21] = 9
    assert view.flag == 9


def test_a_copy_does_not():
    copy = Inner.from_buffer_copy(bytes(range(16)))
    copy.low = 0
    assert copy.high == 0x0F0E0D0C0B0A0908


def test_paths():
    assert offset_of(Outer, "inner.high") == 0x10
    with pytest.raises(ValueError, match=r"Inner has no field 'hihg'; did you mean high\?"):
        offset_of(Outer, "inner.hihg")
    with pytest.raises(ValueError, match=r"has no field 'qqqq'$"):
        size_of(Outer, "qqqq")
    with pytest.raises(ValueError, match="has no field 'x'"):
        offset_of(Outer, "flag.x")


def test_zero_clears_in_place():
    memory = bytearray(b"\xff" * 0x40)
    zero(Outer.from_buffer(memory))
    assert memory == bytes(0x40)


def test_leaves_reach_every_byte_once():
    memory = bytearray(range(0x40))
    seen = bytearray(0x40)
    for _, offset, size, value in leaves(Outer.from_buffer(memory)):
        assert value == int.from_bytes(memory[offset : offset + size], "little")
        for index in range(offset, offset + size):
            seen[index] += 1
    assert seen == b"\x01" * 0x40
    paths = [leaf.path for leaf in leaves(Outer())]
    assert "many[1].high" in paths
    assert "text[2]" in paths


def test_an_overlap_is_refused():
    with pytest.raises(ValueError, match=r"Bad\.second at 0x2 overlaps first, up to 0x4"):

        @layout(size=8)
        class Bad(Structure):
            first: u32 = at(0)
            second: u32 = at(2)


def test_an_overrun_is_refused():
    with pytest.raises(ValueError, match=r"Bad\.only ends at 0xc, beyond the size 0x8"):

        @layout(size=8)
        class Bad(Structure):
            only: u64 = at(4)


def test_a_field_needs_a_place():
    with pytest.raises(ValueError, match=r"Bad\.only has no place"):

        @layout(size=8)
        class Bad(Structure):
            only: u64


def test_an_array_needs_a_count():
    with pytest.raises(ValueError, match=r"at\(0x4, count=\.\.\.\)"):

        @layout(size=8)
        class Bad(Structure):
            only: Array[u8] = at(4)


def test_a_field_needs_a_width():
    with pytest.raises(ValueError, match=r"Bad\.only: .*int.* is none of"):

        @layout(size=8)
        class Bad(Structure):
            only: int = at(0)
