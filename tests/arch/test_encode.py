import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch import descriptors, encode, paging
from trapline.arch.address_space import walk
from trapline.arch.descriptors import CODE_32, CODE_64, DATA_32, Attribute, GateType, SystemType
from trapline.arch.registers import CR0, CR4, EFER

selectors = st.integers(0, 0xFFFF)
offsets = st.integers(0, 0xFFFF_FFFF)
kinds = st.sampled_from([GateType.INTERRUPT_16, GateType.TRAP_16, GateType.INTERRUPT_32, GateType.TRAP_32])
levels = st.integers(0, 3)


@given(offsets, st.integers(0, 0xF_FFFF), st.integers(0, 0xFFF))
def test_a_descriptor_survives(base, units, attributes):
    limit = units << 12 | 0xFFF if attributes & Attribute.G else units
    row = encode.descriptor(base, limit, attributes)
    assert row < 1 << 64
    found = descriptors.base(row), descriptors.limit(row), descriptors.attributes(row)
    assert found == (base, limit, attributes)


@pytest.mark.parametrize(
    ("attributes", "row"),
    [(CODE_32, 0x00CF_9B00_0000_FFFF), (DATA_32, 0x00CF_9300_0000_FFFF), (CODE_64, 0x00AF_9B00_0000_FFFF)],
)
def test_flat_segments(attributes, row):
    assert encode.flat_descriptor(attributes) == row
    assert descriptors.load(8, row) == descriptors.flat(8, attributes)


@given(selectors, offsets, kinds, levels, st.integers(0, 7), st.booleans())
def test_a_gate_survives(selector, offset, kind, dpl, ist, present):
    row = encode.gate(selector, offset, kind, dpl=dpl, ist=ist, present=present)
    assert row < 1 << 64
    assert descriptors.gate_offset_32(row) == offset
    assert struct.unpack("<HHBBH", row.to_bytes(8, "little"))[1:4] == (selector, ist, kind | dpl << 5 | present << 7)


@given(selectors, st.integers(0, (1 << 64) - 1), levels)
def test_a_gate_of_long_mode_survives(selector, offset, dpl):
    low, high = struct.unpack("<QQ", encode.long_gate(selector, offset, dpl=dpl).to_bytes(16, "little"))
    assert descriptors.gate_offset_64(low, high) == offset
    assert low == encode.gate(selector, offset & 0xFFFF_FFFF, dpl=dpl)


@given(selectors, st.integers(0, 0xFFFF))
def test_a_far_pointer(selector, offset):
    assert struct.unpack("<HH", encode.far_pointer(selector, offset).to_bytes(4, "little")) == (offset, selector)


def test_task_state_segments():
    """APM 12.2.4, 12.2.5; figures 12-5 to 12-8."""
    narrow = encode.tss(SystemType.TSS_16, [(0x10, 0x1234), (0x19, 0x5678)])
    assert struct.unpack_from("<2x4H", narrow) == (0x1234, 0x10, 0x5678, 0x19)
    assert len(narrow) == 44
    wide = encode.tss(SystemType.TSS_32, [(0x10, 0x1234_5678), (0x19, 0x9ABC_DEF0)])
    assert struct.unpack_from("<4x4I", wide) == (0x1234_5678, 0x10, 0x9ABC_DEF0, 0x19)
    long = encode.long_tss([1, 2, 3], [4, 5])
    assert struct.unpack_from("<4x3Q8x2Q", long) == (1, 2, 3, 4, 5)
    for table in (wide, long):
        assert struct.unpack_from("<H", table, 102) == (104,) == (len(table),)


def test_the_operands_of_lgdt():
    assert encode.pseudo_descriptor(0x1234_5678, 0x27, bits=32) == bytes.fromhex("2700 78563412")
    assert encode.pseudo_descriptor(0x1234_5678, 0x27, bits=64) == bytes.fromhex("2700 7856341200000000")


@given(st.integers(0, (1 << 48) - 1), st.integers(0, (1 << 40) - 1).map(lambda page: page << 12))
def test_page_tables_lead_to_the_page(gva, gpa):
    gva |= (1 << 64) - (1 << 48) if gva >> 47 else 0
    tables = {
        0x1000 * (5 - level): encode.page_table(
            {paging.table_index(gva, level): encode.page_entry(gpa if level == 1 else 0x1000 * (6 - level), paging.P)}
        )
        for level in (4, 3, 2, 1)
    }

    def read(at, size):
        return tables[at & -0x1000][at & 0xFFF : (at & 0xFFF) + size]

    assert walk(read, CR0.PG, 0x1000, CR4.PAE, EFER.LMA, gva) == gpa | gva & 0xFFF


def test_sizes_of_pages():
    assert [paging.page_size(level) for level in (1, 2, 3)] == [4 << 10, 2 << 20, 1 << 30]


@pytest.mark.parametrize(
    "call",
    [
        lambda: encode.descriptor(1 << 32, 0, 0),
        lambda: encode.descriptor(0, 1 << 20, 0),
        lambda: encode.descriptor(0, 0x1000, Attribute.G),
        lambda: encode.descriptor(0, 0, 1 << 12),
        lambda: encode.gate(0, 1 << 32),
        lambda: encode.gate(8, 0, dpl=4),
        lambda: encode.gate(8, 0, ist=8),
        lambda: encode.long_gate(8, 1 << 64),
        lambda: encode.far_pointer(0, 0x1_0000),
        lambda: encode.page_entry(0x1001, paging.P),
        lambda: encode.page_entry(0x1000, 0x2000),
        lambda: encode.page_table({512: 0}),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match="does not fit"):
        call()
