"""The image of FXSAVE."""

import pytest

from trapline.arch import fxsave

EMPTY = bytes(fxsave.SIZE)
ONE, NAN, DENORMAL = 0x3FFF << 64 | 1 << 63, 0x7FFF << 64 | 3 << 62, 1


def test_registers_are_where_the_manual_has_them():
    image = bytes(range(256)) * 2
    assert fxsave.read(image, "fcw") == 0x0100
    assert fxsave.read(image, "mxcsr") == 0x1B1A1918
    assert fxsave.read(image, "st7") == int.from_bytes(image[144:154], "little")
    assert fxsave.read(image, "xmm15") == int.from_bytes(image[400:416], "little")
    assert fxsave.read(fxsave.write(image, "xmm3", 1 << 127), "xmm3") == 1 << 127


@pytest.mark.parametrize("top", [0, 5])
def test_tags_are_of_physical_registers_and_by_their_contents(top):
    image = fxsave.write(EMPTY, "fsw", top << 11)
    for number, value in enumerate((ONE, NAN, 0, DENORMAL)):
        image = fxsave.write(image, f"st{number}", value)
    tags = [0b11] * 8
    for number, tag in enumerate((0b00, 0b10, 0b01, 0b10)):
        tags[(top + number) % 8] = tag
    word = sum(tag << 2 * number for number, tag in enumerate(tags))
    assert fxsave.read(image, "ftw") == 0xFFFF
    image = fxsave.write(image, "ftw", word)
    assert fxsave.read(image, "ftw") == word
    assert fxsave.read(image, f"mm{top}") == 1 << 63


def test_bits_of_mxcsr_that_are_reserved():
    assert fxsave.refused(fxsave.write(EMPTY, "mxcsr", 0x2_FFFF)) == 0x2_0040
    masked = EMPTY[:28] + b"\xff\xff\x02\0" + EMPTY[32:]
    assert fxsave.refused(fxsave.write(masked, "mxcsr", 0x2_FFFF)) == 0
