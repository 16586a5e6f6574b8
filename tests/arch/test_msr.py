import pytest
from hypothesis import given
from hypothesis import strategies as st

from trapline.arch import msr


@pytest.mark.parametrize(
    ("number", "bit"),
    [
        (0x0000_0000, 0),
        (msr.SYSENTER_CS, 0x174 * 2),
        (0x0000_1FFF, 0x800 * 8 - 2),
        (0xC000_0000, 0x800 * 8),
        (msr.EFER, 0x800 * 8 + 0x100),
        (0xC000_1FFF, 0x1000 * 8 - 2),
        (msr.VM_CR, 0x1000 * 8 + 0x228),
        (msr.VM_HSAVE_PA, 0x1000 * 8 + 0x22E),
        (0xC001_1FFF, 0x1800 * 8 - 2),
        (0x0000_2000, None),
        (0xBFFF_FFFF, None),
        (0xC000_2000, None),
        (0xC001_2000, None),
        (0x4000_0000, None),
    ],
)
def test_where_the_bits_stand(number, bit):
    assert msr.msrpm_bit(number) == bit


@given(st.integers(0, 2**32 - 1))
def test_every_bit_is_inside_the_map(number):
    bit = msr.msrpm_bit(number)
    assert bit is None or (bit % 2 == 0 and 0 <= bit < msr.MSRPM_SIZE * 8)
