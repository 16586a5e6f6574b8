import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.symbols.slide import LANDMARKS, KernelValues, find_slide

BASE = 0xFFFF_FFFF_8200_0000
NEW = {name: BASE + 0x40 * place for place, name in enumerate(sorted(LANDMARKS)) if name.startswith(("asm_", "entry_"))}
OLD = {
    name: BASE + 0x40 * place
    for place, name in enumerate(sorted(LANDMARKS))
    if not name.startswith("asm_") and not name.startswith("entry_SYSCALL_c")
}
VECTORS = {0: "divide_error", 6: "invalid_op", 8: "double_fault", 13: "general_protection", 14: "page_fault"}


def values(addresses, slide, prefix="asm_exc_", vectors=VECTORS):
    handlers = {vector: addresses[prefix + name] + slide for vector, name in vectors.items()}
    return KernelValues(addresses["entry_SYSCALL_64"] + slide, 0, 0, handlers)


@given(st.integers(-256, 256))
def test_the_slide_is_found(pages):
    slide = pages << 21
    assert find_slide(values(NEW, slide), NEW) == slide
    assert find_slide(values(OLD, slide, prefix=""), OLD) == slide


def test_three_must_agree():
    two = values(NEW, 1 << 21, vectors={14: "page_fault"})
    assert find_slide(two, NEW) is None
    assert find_slide(values(NEW, 1 << 21, vectors={14: "page_fault", 13: "general_protection"}), NEW) == 1 << 21


def test_another_kernel_is_not_taken_for_this():
    own = values(NEW, 0)
    other = {name: address + 0x1000 * place for place, (name, address) in enumerate(sorted(NEW.items()))}
    assert find_slide(own, other) is None


@pytest.mark.parametrize("slide", [8, 0x40, 0xFFF])
def test_a_slide_is_whole_pages(slide):
    assert find_slide(values(NEW, slide), NEW) is None


def test_a_bios_is_no_linux():
    handlers = dict.fromkeys(range(32), 0xF_FF53)
    assert find_slide(KernelValues(0, 0, 0, handlers), NEW) is None
    assert find_slide(KernelValues(0, 0, 0, {}), {}) is None


@given(st.dictionaries(st.integers(0, 31), st.integers(0, (1 << 64) - 1)), st.integers(0, (1 << 64) - 1))
def test_a_slide_is_never_told_by_chance(handlers, lstar):
    assert find_slide(KernelValues(lstar, 0, 0, handlers), NEW) is None
