"""The image of FXSAVE and FXRSTOR: the x87, MMX and SSE registers (APM vol. 2, 11.4.4).

The form with 32-bit pointers and their selectors, as an operand of 32 bits gives it in every mode.
"""

from collections.abc import Mapping
from typing import Final

SIZE: Final = 512
ALIGNMENT: Final = 16

X87_REGISTERS: Final = 8
XMM_REGISTERS: Final = 16

_ST: Final = 32
_XMM: Final = 160
_SLOT: Final = 16
"""Bytes from one register to the next."""
_TAGS: Final = 4
"""The abridged tag word: one bit for each physical register, 1 where it holds a value."""
_MXCSR_MASK: Final = 28

PLACES: Final[Mapping[str, tuple[int, int]]] = {
    "fcw": (0, 2),
    "fsw": (2, 2),
    "fop": (6, 2),
    "fip": (8, 4),
    "fcs": (12, 2),
    "fdp": (16, 4),
    "fds": (20, 2),
    "mxcsr": (24, 4),
    **{f"st{number}": (_ST + _SLOT * number, 10) for number in range(X87_REGISTERS)},
    **{f"xmm{number}": (_XMM + _SLOT * number, 16) for number in range(XMM_REGISTERS)},
}
"""Offset and size in bytes of each register that the image has as it is. ST is counted from the top of the stack."""

TAG_WORD: Final = "ftw"
"""The whole tag word, which the image has not: two bits for each physical register (APM vol. 1, 6.2.4)."""
MMX: Final = tuple(f"mm{number}" for number in range(X87_REGISTERS))
"""The low 64 bits of the physical x87 registers."""

_VALID, _ZERO, _SPECIAL, _EMPTY = range(4)
_INTEGER_BIT: Final = 1 << 63
_EXPONENT: Final = 0x7FFF
_DEFAULT_MXCSR_MASK: Final = 0xFFBF
"""Where MXCSR_MASK is 0 (APM vol. 2, 11.4.4)."""


def read(image: bytes, name: str) -> int:
    """Return a register, by a name of PLACES, TAG_WORD or MMX."""
    if name == TAG_WORD:
        return sum(_tag(image, number) << 2 * number for number in range(X87_REGISTERS))
    offset, size = _place(image, name)
    return int.from_bytes(image[offset : offset + size], "little")


def write(image: bytes, name: str, value: int) -> bytes:
    """Return an image in which one register has another value, which must fit. Of the tag word, only empty counts."""
    if name == TAG_WORD:
        bits = sum((value >> 2 * number & _EMPTY != _EMPTY) << number for number in range(X87_REGISTERS))
        offset, size, value = _TAGS, 1, bits
    else:
        offset, size = _place(image, name)
    return image[:offset] + value.to_bytes(size, "little") + image[offset + size :]


def bits(name: str) -> int:
    """Return the width of a register."""
    if name == TAG_WORD:
        return 2 * X87_REGISTERS
    return 64 if name in MMX else 8 * PLACES[name][1]


def refused(image: bytes) -> int:
    """Return the bits of MXCSR for which FXRSTOR raises #GP."""
    mask = int.from_bytes(image[_MXCSR_MASK : _MXCSR_MASK + 4], "little") or _DEFAULT_MXCSR_MASK
    return read(image, "mxcsr") & ~mask


def _reset() -> bytes:
    image = bytes(SIZE)
    for name, value in (("fcw", 0x40), (TAG_WORD, 0x5555), ("mxcsr", 0x1F80)):
        image = write(image, name, value)
    return image


def _place(image: bytes, name: str) -> tuple[int, int]:
    if name in MMX:
        return _ST + _SLOT * _stack_place(image, MMX.index(name)), 8
    return PLACES[name]


def _stack_place(image: bytes, number: int) -> int:
    """Return which ST a physical register is."""
    top = read(image, "fsw") >> 11 & 7
    return (number - top) % X87_REGISTERS


def _tag(image: bytes, number: int) -> int:
    """Return the tag of a physical register, by its contents (APM vol. 2, table 11-1)."""
    if not image[_TAGS] >> number & 1:
        return _EMPTY
    value = read(image, f"st{_stack_place(image, number)}")
    significand, exponent = value & (1 << 64) - 1, value >> 64 & _EXPONENT
    if not significand | exponent:
        return _ZERO
    return _VALID if significand & _INTEGER_BIT and 0 < exponent < _EXPONENT else _SPECIAL


RESET: Final = _reset()
"""After RESET (APM vol. 2, 14.1.3)."""
