from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors.qemu.conftest import make_uefi
from trapline.arch import paging
from trapline.processors.qemu import firmware, layout, nested
from trapline.processors.qemu.layout import SIZE, SharedMemory, base_for

PAGE, MIB, GIB, TOP = 0x1000, 1 << 20, 1 << 30, 1 << 32
RIGHTS = paging.P | paging.RW | paging.US


class Walker:
    """Reads nested tables as the CPU does (APM 15.25.5), and keeps what it saw."""

    def __init__(self, memory, base, root):
        self._memory, self._base, self._root = memory, base, root

    def entry(self, table, index):
        place = table - self._base + 8 * index
        return int.from_bytes(self._memory[place : place + 8], "little")

    def leaves(self):
        """Yield (gpa, size, host address, rights that every level grants)."""
        yield from self._leaves(self._root, 4, 0, RIGHTS)

    def _leaves(self, table, level, gpa, rights):
        for index in range(512):
            entry = self.entry(table, index)
            size = 1 << 3 + 9 * level
            if entry & paging.P:
                if level == 1 or entry & paging.PS:
                    yield gpa + index * size, size, entry & paging.ADDRESS, rights & entry
                else:
                    yield from self._leaves(entry & paging.ADDRESS, level - 1, gpa + index * size, rights & entry)


class Built(NamedTuple):
    memory: memoryview
    wrapped: firmware.Firmware
    leaves: list
    base: int
    end: int


@pytest.fixture(scope="module", params=[(0x10000, 40), (0x40000, 36), (0x20000, 33), ("uefi", 40)])
def built(request):
    size, bits = request.param
    if size == "uefi":
        wrapped = firmware.wrap(make_uefi(), unlock_svm=True, flash=True)
    else:
        bios = bytes(1 + place * 11 % 255 for place in range(size - 0x100)) + bytes(0xF0) + b"\xea" * 16
        wrapped = firmware.wrap(bios, unlock_svm=True)
    memory = memoryview(bytearray(SIZE))
    shared = SharedMemory(memory)
    shared.base = base_for(bits)
    root = nested.build(shared, wrapped)
    return Built(memory, wrapped, list(Walker(memory, shared.base, root).leaves()), shared.base, 1 << bits)


def host(built, gpa):
    for start, size, target, _ in built.leaves:
        if start <= gpa < start + size:
            return target + gpa - start
    return None


def test_everything_is_mapped_once_with_all_rights(built):
    end = 0
    for gpa, size, _, rights in built.leaves:
        assert gpa == end
        assert rights == RIGHTS
        end = gpa + size
    assert end == built.end


def test_no_page_leads_to_the_monitor(built):
    shown = range(built.base + layout.BIOS_PAGES_AT, built.base + layout.BIOS_PAGES_AT + MIB)
    for gpa, size, target, _ in built.leaves:
        overlaps = built.base - size < target < built.base + SIZE
        assert not overlaps or target in shown, f"{gpa:#x}"


def test_every_page_of_the_window_is_hidden(built):
    hidden = {
        gpa: target for gpa, size, target, _ in built.leaves if built.base <= gpa < built.base + SIZE and size == PAGE
    }
    assert len(hidden) == SIZE // PAGE
    assert all(built.end - SIZE <= target < built.end for target in hidden.values())


def test_the_bios_is_shown_as_it_came(built):
    memory, wrapped = built.memory, built.wrapped
    shown = b""
    rom = TOP - len(wrapped.image)
    for gpa in range(TOP - len(wrapped.bios), TOP, PAGE):
        place = host(built, gpa)
        content, start = (wrapped.image, rom) if place == gpa else (memory, built.base)
        shown += content[place - start : place - start + PAGE]
    assert shown == wrapped.bios


def test_the_entry_below_the_bios_is_not_shown(built):
    wrapped = built.wrapped
    for gpa in range(TOP - len(wrapped.image), TOP - len(wrapped.bios), PAGE):
        assert built.end - SIZE <= host(built, gpa) < built.end


@settings(max_examples=40)
@given(st.data())
def test_everything_else_is_the_identity(built, data):
    wrapped = built.wrapped
    rom = TOP - len(wrapped.image)
    usual = st.sampled_from(
        [0, 0xA0000, 0xF0000, 0xC000_0000, rom - 1, TOP, built.base - 1, built.base + SIZE, built.end - 1]
    )
    gpa = data.draw(st.integers(0, built.end - 1) | usual)
    if not (rom <= gpa < TOP or built.base <= gpa < built.base + SIZE):
        assert host(built, gpa) == gpa


def test_large_pages_are_used_where_nothing_is_special(built):
    sizes = [size for _, size, _, _ in built.leaves]
    assert sizes.count(GIB) == built.end // GIB - 2


def test_the_tables_stay_in_their_even_mebibyte(built):
    memory = built.memory
    used = max(
        place for place in range(layout.NESTED_AT, layout.NESTED_AT + 2 * MIB, 8) if any(memory[place : place + 8])
    )
    assert used < layout.NESTED_AT + MIB
    assert not any(memory[: layout.NESTED_AT])


def test_there_is_an_end_of_the_room(memory):
    tables = nested._Tables(memory, base_for(40))
    for _ in range(MIB // PAGE):
        tables.new()
    with pytest.raises(AssertionError, match="leave their mebibyte"):
        tables.new()
