import random

import pytest

from tools.fuzzing.operands import Coder, part


def made(text, bits=32, mode="pm32", times=200):
    """Everything that a part becomes in some tries."""
    coder = Coder(random.Random(text), bits, mode, 0)
    make = part(text)
    return {make(coder) for _ in range(times)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0F", {b"\x0f"}), ("80,83", {b"\x80", b"\x83"}), ("70-72", {b"p", b"q", b"r"}), (".,66", {b"", b"\x66"})],
)
def test_bytes_are_named_one_by_one_and_by_ranges(text, expected):
    assert made(text) == expected


@pytest.mark.parametrize(("bits", "mode"), [(16, "real"), (32, "pm32"), (64, "long")])
def test_a_digit_is_the_reg_field_and_m_has_no_register(bits, mode):
    registers = {data[0] for data in made("/6,7", bits, mode)}
    assert {byte >> 3 & 7 for byte in registers} == {6, 7}
    assert {byte >> 6 for byte in registers} == {0, 1, 2, 3}
    assert {data[0] >> 6 for data in made("/3,5m", bits, mode)} == {0, 1, 2}


@pytest.mark.parametrize(("bits", "mode", "size"), [(16, "real", 2), (32, "pm32", 4), (64, "long", 4)])
def test_an_immediate_is_a_word_or_a_doubleword(bits, mode, size):
    assert {len(data) for data in made("value", bits, mode)} == {size}
    assert {len(data) for data in made("value32", bits, mode)} == {4}


@pytest.mark.parametrize(
    ("text", "widths"), [("o32", {16: b"\x66", 32: b"", 64: b""}), ("o64", {32: b"", 64: b"\x48"})]
)
def test_operand_size_prefixes(text, widths):
    for bits, prefix in widths.items():
        assert made(text, bits) == {prefix}


def test_a_part_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="nonsense"):
        part("nonsense")
