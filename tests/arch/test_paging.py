import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch.paging import NX, PS, NotMapped, P, walk
from trapline.arch.registers import CR0, CR4, EFER

PAGED = CR0.PE | CR0.PG
LONG = EFER.LME | EFER.LMA


class Memory(dict):
    """Entries by gpa; what is not there reads as zero."""

    def read(self, gpa, size):
        return self.get(gpa, 0).to_bytes(size, "little")


def long_walk(memory, gva, cr3=0x1000, cr4=CR4.PAE):
    return walk(memory.read, PAGED, cr3, cr4, LONG, gva)


def test_without_paging_an_address_is_itself():
    assert walk(Memory().read, CR0.PE, 0, 0, 0, 0x1_1234_5678) == 0x1234_5678


@given(st.lists(st.integers(0, 511), min_size=5, max_size=5), st.integers(0, 0xFFF), st.booleans())
def test_small_pages_in_four_and_five_levels(indices, offset, five):
    levels = 5 if five else 4
    used, memory, gva = indices[:levels], Memory(), 0
    for depth, index in enumerate(used):
        memory[0x1000 * (depth + 1) + 8 * index] = 0x1000 * (depth + 2) | P | NX | 0x66
        gva = gva << 9 | index
    gva = gva << 12 | offset
    if used[0] & 0x100:  # the upper half
        gva |= -(1 << (12 + 9 * levels)) & (1 << 64) - 1
    cr4 = CR4.PAE | (CR4.LA57 if five else 0)
    assert long_walk(memory, gva, cr4=cr4) == 0x1000 * (levels + 1) | offset


@given(st.integers(0, (1 << 30) - 1))
def test_large_pages(offset):
    memory = Memory({0x1000: 0x2000 | P, 0x2000: 0xF_4000_0000 | P | PS | 1 << 12, 0x2008: 0x3000 | P})
    for index in range(512):
        memory[0x3000 + 8 * index] = (0x20_0000 * (511 - index)) | P | PS | NX
    assert long_walk(memory, offset) == 0xF_4000_0000 + offset
    large = offset >> 21
    assert long_walk(memory, (1 << 30) + offset) == 0x20_0000 * (511 - large) + (offset & 0x1F_FFFF)


def test_bits_of_cr3_that_are_no_address():
    memory = Memory({0x1000: 0x2000 | P, 0x2000: P | PS})
    assert long_walk(memory, 5, cr3=0x1FFF) == 5


def test_lme_alone_means_long_mode():
    memory = Memory({0x1000: 0x2000 | P, 0x2000: P | PS})
    assert walk(memory.read, PAGED, 0x1000, CR4.PAE, EFER.LME, 0x123) == 0x123


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_the_missing_level_is_named(missing):
    memory = Memory({0x1000: 0x2000 | P, 0x2000: 0x3000 | P, 0x3000: 0x4000 | P, 0x4000: 0x5000 | P})
    memory[0x1000 * (5 - missing)] = 0xABC0
    with pytest.raises(NotMapped) as caught:
        long_walk(memory, 0x10)
    assert (caught.value.gva, caught.value.level, caught.value.entry) == (0x10, missing, 0xABC0)
    assert str(caught.value) == f"0x10 is not mapped: the level {missing} entry is 0xabc0"


@pytest.mark.parametrize("gva", [1 << 47, (1 << 64) - (1 << 47) - 1, 1 << 63])
def test_an_address_that_is_not_canonical(gva):
    with pytest.raises(NotMapped, match="not canonical") as caught:
        long_walk(Memory(), gva)
    assert caught.value.level == 0


def test_five_levels_widen_what_is_canonical():
    with pytest.raises(NotMapped) as caught:
        long_walk(Memory(), 1 << 47, cr4=CR4.PAE | CR4.LA57)
    assert caught.value.level == 5
    with pytest.raises(NotMapped, match="not canonical"):
        long_walk(Memory(), 1 << 56, cr4=CR4.PAE | CR4.LA57)


@given(st.integers(0, 2**32 - 1))
def test_pae(gva):
    memory = Memory({0x1FE0 + 8 * index: 0x2000 + 0x1000 * index | P for index in range(4)})
    top, middle, low = gva >> 30, gva >> 21 & 0x1FF, gva >> 12 & 0x1FF
    memory[0x2000 + 0x1000 * top + 8 * middle] = 0x8000 | P
    memory[0x8000 + 8 * low] = 0x7_0000_0000 | P | NX
    read = memory.read
    assert walk(read, PAGED, 0x1FFF, CR4.PAE, 0, gva) == 0x7_0000_0000 | gva & 0xFFF
    memory[0x2000 + 0x1000 * top + 8 * middle] = 0x3_0020_0000 | P | PS
    assert walk(read, PAGED, 0x1FFF, CR4.PAE, 0, gva) == 0x3_0020_0000 | gva & 0x1F_FFFF
    del memory[0x1FE0 + 8 * top]
    with pytest.raises(NotMapped) as caught:
        walk(read, PAGED, 0x1FFF, CR4.PAE, 0, gva)
    assert caught.value.level == 3


@given(st.integers(0, 2**33 - 1))
def test_two_levels(gva):
    directory, table = gva >> 22 & 0x3FF, gva >> 12 & 0x3FF
    memory = Memory({0x1000 + 4 * directory: 0x2000 | P | PS, 0x2000 + 4 * table: 0xFFFF_F000 | P})
    # Without CR4.PSE the size bit means nothing.
    assert walk(memory.read, PAGED, 0x1018, 0, 0, gva) == 0xFFFF_F000 | gva & 0xFFF
    # With it, bits 20:13 are bits 39:32 of the address.
    memory[0x1000 + 4 * directory] = 0xFFC0_0000 | 0xA5 << 13 | P | PS
    assert walk(memory.read, PAGED, 0x1018, CR4.PSE, 0, gva) == 0xA5_FFC0_0000 | gva & 0x3F_FFFF
    memory[0x1000 + 4 * directory] = 0x2000 | P
    assert walk(memory.read, PAGED, 0x1018, CR4.PSE, 0, gva) == 0xFFFF_F000 | gva & 0xFFF
    memory[0x2000 + 4 * table] = 2
    with pytest.raises(NotMapped) as caught:
        walk(memory.read, PAGED, 0x1018, CR4.PSE, 0, gva)
    assert (caught.value.level, caught.value.entry) == (1, 2)
