"""The code of checks: machine code with the offsets of its labels."""

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from trapline.asm.assembler import Assembler, Operand
from trapline.asm.operands import AX, BX, EAX, EBX, RAX, RBX

Line: TypeAlias = "str | tuple[str | Operand, ...]"
"""A label as "end:", an instruction without operands as "nop", or ("mov", EAX, 1)."""

ACCUMULATORS: Final = {16: AX, 32: EAX, 64: RAX}
"""AX, EAX or RAX by the size of code."""
BASES: Final = {16: BX, 32: EBX, 64: RBX}
"""BX, EBX or RBX by the size of code."""


class Code(NamedTuple):
    """Position-independent machine code."""

    blob: bytes
    labels: Mapping[str, int]
    """Offset by name."""


def assemble(bits: int, *lines: Line) -> Code:
    """Assemble a listing."""
    assembler = Assembler(bits)
    for line in lines:
        if isinstance(line, str) and line.endswith(":"):
            assembler.label(line[:-1])
        else:
            mnemonic, *operands = (line,) if isinstance(line, str) else line
            getattr(assembler, str(mnemonic))(*operands)
    return Code(assembler.assemble(0), assembler.labels(0))
