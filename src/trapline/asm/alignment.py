"""Memory operands that must be aligned to 16 bytes (APM vol. 1, 4.2.2; vol. 2, 8.2.14)."""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import iced_x86 as iced

from .decoder import Register, new_decoder

ALIGNMENT: Final = 16
_UNALIGNED: Final = frozenset(
    getattr(iced.Mnemonic, name)
    for name in ("MOVUPS", "MOVUPD", "MOVDQU", "LDDQU", "PCMPESTRI", "PCMPESTRM", "PCMPISTRI", "PCMPISTRM")
)
_OTHERS: Final = frozenset(
    getattr(iced.Mnemonic, name) for name in ("FXSAVE", "FXSAVE64", "FXRSTOR", "FXRSTOR64", "CMPXCHG16B")
)
_CANDIDATE: Final = re.compile(rb"\x0f[\x10-\x17\x28-\x2f\x38\x3a\x50-\x7f\xc2\xc6\xd0-\xff]")
"""The opcodes of SSE, in the order of bytes of an instruction."""
_SEGMENTS: Final = (Register.ES, Register.CS, Register.SS, Register.DS, Register.FS, Register.GS)
_SEGMENT: Final[dict[int, int]] = {register: number for number, register in enumerate(_SEGMENTS)}


class AlignedOperand(NamedTuple):
    """A memory operand of SSE that must be aligned; registers by their numbers, -1: none."""

    address: int
    """Linear, of the instruction."""
    base: int
    scaled: int
    """The register that is multiplied."""
    scale: int
    displacement: int
    """Of an operand relative to RIP its address."""
    segment: int
    """ES, CS, SS, DS, FS, GS: the register whose base is added."""


def needs_alignment(instruction: Any) -> bool:  # noqa: ANN401  # iced has no hints
    """Say whether the memory operand of an instruction, if it has one, must be aligned to 16 bytes."""
    return instruction.mnemonic in _OTHERS or _is_packed(instruction)


def may_have_sse(code: bytes) -> bool:
    """Say whether there are bytes in the code that an SSE instruction begins with; much faster than to decode it."""
    return _CANDIDATE.search(code) is not None


def aligned_operands(code: bytes, address: int, bits: int) -> Iterator[AlignedOperand]:
    """Yield the operands of the SSE instructions in `bits`-bit code; `address` is linear, that of the first byte."""
    for instruction in new_decoder(code, bits, address):
        if instruction.memory_size and _is_packed(instruction):
            segment = _SEGMENT[instruction.memory_segment]
            yield AlignedOperand(
                instruction.ip,
                _number(instruction.memory_base),
                _number(instruction.memory_index),
                instruction.memory_index_scale,
                instruction.memory_displacement,
                segment if bits != 64 or segment > 3 else -1,
            )


def _is_packed(instruction: Any) -> bool:  # noqa: ANN401  # as above
    """Say whether it is an SSE instruction with 16 bytes of memory that must be aligned: with VEX none must."""
    return bool(
        iced.MemorySizeExt.size(instruction.memory_size) == ALIGNMENT
        and instruction.encoding == iced.EncodingKind.LEGACY
        and instruction.mnemonic not in _UNALIGNED
        and any(iced.RegisterExt.is_xmm(instruction.op_register(n)) for n in range(instruction.op_count))
    )


def _number(register: Any) -> int:  # noqa: ANN401  # as above
    return iced.RegisterExt.number(register) if iced.RegisterExt.is_gpr(register) else -1
