import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch.address_space import AddressSpace, walk
from trapline.arch.paging import (
    FETCH,
    IMPLICIT,
    NX,
    PS,
    READ,
    RW,
    US,
    USER,
    WRITE,
    A,
    D,
    Denied,
    NotMapped,
    P,
    PageFault,
)  # fmt: skip
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
    assert (caught.value.address, caught.value.level, caught.value.entry) == (0x10, missing, 0xABC0)
    assert str(caught.value) == f"cannot access 0x10: the level {missing} page-table entry, 0xabc0, is not present"


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


class Words(dict):
    """Entries by gpa, read as words; what is not there reads as zero."""

    def u32(self, gpa):
        return self.get(gpa, 0) & 0xFFFF_FFFF

    def u64(self, gpa):
        return self.get(gpa, 0)


GVA = 0x1000
RIGHTS = list(itertools.product((0, RW), (0, US), (0, NX)))


def spaces(entry, upper, cr0=0, cr4=0):
    """Return the same page in four and five levels, PAE and two levels."""
    wide = EFER.NXE
    leaf, table = entry | P | 0x7000, upper | P
    five = {
        0x1000: table | 0x2000,
        0x2000: table | 0x3000,
        0x3000: table | 0x4000,
        0x4000: table | 0x5000,
        0x5008: leaf,
    }
    four = {0x1000: table | 0x2000, 0x2000: table | 0x3000, 0x3000: table | 0x4000, 0x4008: leaf}
    pae = {0x1000: 0x2001, 0x2000: table | 0x3000, 0x3008: leaf}
    yield AddressSpace(Words(five), PAGED | cr0, 0x1000, CR4.PAE | CR4.LA57 | cr4, LONG | wide, 40)
    yield AddressSpace(Words(four), PAGED | cr0, 0x1000, CR4.PAE | cr4, LONG | wide, 40)
    yield AddressSpace(Words(pae), PAGED | cr0, 0x1000, CR4.PAE | cr4, wide, 40)
    if not (entry | upper) & NX:
        narrow = {0x1000: table | 0x2000, 0x2004: leaf}
        yield AddressSpace(Words(narrow), PAGED | cr0, 0x1000, cr4, 0, 40)


@pytest.mark.parametrize(("rw", "us", "nx"), RIGHTS)
@pytest.mark.parametrize("access", [READ, WRITE, FETCH, READ | USER, WRITE | USER, FETCH | USER, READ | IMPLICIT])
@pytest.mark.parametrize(("cr0", "cr4"), [(0, 0), (CR0.WP, 0), (CR0.WP, CR4.SMEP), (0, CR4.SMAP)])
@pytest.mark.parametrize("ac", [False, True])
def test_rights(rw, us, nx, access, cr0, cr4, ac):
    """The rules of APM 5.6, once more: each level must grant a right, and one NX denies execution."""
    by_user = access & USER
    rules = {
        Denied.SUPERVISOR_PAGE: by_user and not us,
        Denied.SMEP: not by_user and us and access & FETCH and cr4 & CR4.SMEP,
        Denied.SMAP: not by_user and us and not access & FETCH and cr4 & CR4.SMAP and (access & IMPLICIT or not ac),
        Denied.READ_ONLY: access & WRITE and not rw and (by_user or cr0 & CR0.WP),
        Denied.NO_EXECUTE: access & FETCH and nx,
    }
    denied = {rule for rule, holds in rules.items() if holds}
    full = RW | US
    for entry, upper in ((rw | us | nx, full), (full | nx, rw | us), (rw | us, full | nx)):
        for space in spaces(entry, upper, cr0, cr4):
            if not denied:
                assert space.translate(GVA + 5, access, ac) == 0x7005
            else:
                with pytest.raises(PageFault) as caught:
                    space.translate(GVA + 5, access, ac)
                code = access & (WRITE | USER) | 1
                if access & FETCH and (cr4 & CR4.SMEP or space.mask != 0xFFFF_FFFF or space._levels == 3):
                    code |= FETCH
                assert (caught.value.error_code, caught.value.address) == (code, GVA + 5)
                assert caught.value.denied in denied


def test_accessed_and_dirty_bits_are_noted_once():
    for space in spaces(RW, RW | A):
        space.translate(GVA, READ)
        space.translate(GVA, READ)
        space.translate(GVA, WRITE)
        space.translate(GVA, WRITE)
        (first, read), (second, written) = space.writes
        assert first == second
        assert int.from_bytes(read, "little") & (A | D) == A
        assert int.from_bytes(written, "little") & (A | D) == A | D
    for space in spaces(RW | A | D, RW):
        space.translate(GVA, WRITE)
        assert space.writes
        assert all(int.from_bytes(entry, "little") & (A | D) == A for _, entry in space.writes)


@pytest.mark.parametrize(
    ("entries", "level", "reserved"),
    [
        ({0x1000: 1 << 40 | 0x2000 | P}, 4, True),
        ({0x1000: PS | 0x2000 | P}, 4, True),
        ({0x1000: 0x2000 | P, 0x2000: PS | 1 << 13 | P}, 3, True),
        ({0x1000: 0x2000 | P, 0x2000: PS | 1 << 12 | P}, 3, False),
        ({0x1000: 0x2000 | P, 0x2000: 0x3000 | P, 0x3000: PS | 1 << 20 | P}, 2, True),
        ({0x1000: 0x2000 | P, 0x2000: 0x3000 | P, 0x3000: 0x4000 | P, 0x4008: 1 << 45 | P}, 1, True),
        ({0x1000: 0x2000 | P, 0x2000: NX | PS | P}, 3, True),
    ],
)
def test_reserved_bits(entries, level, reserved):
    space = AddressSpace(Words(entries), PAGED, 0x1000, CR4.PAE, LONG, 40)
    if not reserved:
        assert space.translate(GVA, READ) == GVA
        return
    with pytest.raises(PageFault) as caught:
        space.translate(GVA, WRITE | USER)
    assert (caught.value.level, caught.value.error_code) == (level, 1 | 2 | 4 | 8)
    assert caught.value.denied is Denied.RESERVED_BITS
    assert caught.value.reserved & -caught.value.reserved == caught.value.reserved != 0
    assert caught.value.reserved & caught.value.entry


def test_reserved_bits_of_the_shorter_walks():
    with pytest.raises(PageFault) as caught:
        AddressSpace(Words({0x1000: 1 << 52 | P}), PAGED, 0x1000, CR4.PAE, EFER.NXE, 40).translate(0, READ)
    assert (caught.value.level, caught.value.error_code) == (3, 9)
    with pytest.raises(PageFault) as caught:
        AddressSpace(Words({0x1000: 1 << 21 | PS | P}), PAGED, 0x1000, CR4.PSE, 0, 40).translate(0, READ)
    assert (caught.value.level, caught.value.error_code) == (2, 9)


def test_large_pages_of_two_levels_have_rights_too():
    space = AddressSpace(Words({0x1000: PS | P | RW}), PAGED, 0x1000, CR4.PSE, 0, 40)
    assert space.translate(0x1234, WRITE) == 0x1234
    assert space.writes == [(0x1000, (PS | P | RW | A | D).to_bytes(4, "little"))]
    with pytest.raises(PageFault, match=r"#PF\(0x5\) at 0x1234: the page is a supervisor page; the level 2"):
        space.translate(0x1234, USER)


def test_without_tables_nothing_is_denied():
    space = AddressSpace(Words(), CR0.PE, 0, 0, 0, 40)
    assert space.translate(0x1_0000_1234, WRITE | USER) == 0x1234
    assert space.is_canonical(1 << 63)


def test_what_is_not_canonical_is_no_page_fault():
    space = AddressSpace(Words(), PAGED, 0, CR4.PAE, LONG, 40)
    with pytest.raises(NotMapped, match="not canonical"):
        space.translate(1 << 47, READ)
    assert not space.is_canonical(1 << 47)
