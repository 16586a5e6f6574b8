"""AVX instructions with a VEX prefix in code (APM vol. 3, 1.9)."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import iced_x86 as iced

from .decoder import new_decoder

_OPCODES: Final = rb"[\x10-\x17\x28-\x2f\x41-\x4b\x50-\x7f\x90-\x99\xc2\xc4-\xc6\xd0-\xfe]"
"""Of the first map."""
_CANDIDATE: Final = re.compile(
    rb"[\xc4\xc5](?:(?<=\xc5).%s|(?<=\xc4)(?:[\x01\x21\x41\x61\x81\xa1\xc1\xe1].%s"
    rb"|[\x02\x03\x22\x23\x42\x43\x62\x63\x82\x83\xa2\xa3\xc2\xc3\xe2\xe3]))" % (_OPCODES, _OPCODES),
    re.DOTALL,
)
"""VEX of two bytes or of three, with an opcode of the first map or of another."""
_GENERAL: Final = frozenset((iced.CpuidFeature.BMI1, iced.CpuidFeature.BMI2))
"""Instructions on general registers that have VEX too (APM vol. 3, 1.9.2)."""


class AvxInstruction(NamedTuple):
    """An instruction of AVX, AVX2, FMA, or another extension of it."""

    address: int
    """Linear."""


def may_have_avx(code: bytes) -> bool:
    """Say whether there are bytes in the code that such an instruction begins with."""
    return _CANDIDATE.search(code) is not None


def avx_instructions(code: bytes, address: int, bits: int) -> Iterator[AvxInstruction]:
    """Yield those in `bits`-bit code; `address` is linear, that of the first byte."""
    for instruction in new_decoder(code, bits, address):
        if instruction.encoding == iced.EncodingKind.VEX and _GENERAL.isdisjoint(instruction.cpuid_features()):
            yield AvxInstruction(instruction.ip)
