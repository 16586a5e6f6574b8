"""Random code: instructions that raise exceptions in every way, plain ones between them, and random bytes."""

import re
from typing import Final

from . import places
from .instructions import ANY, GROUPS, Group
from .operands import PARTS, Coder, Part, part

_TIMED: Final = (b"\x0f\x31", b"\x0f\x01\xf9", b"\x0f\xc7", b"\x0f\x01\xc9", b"\x0f\x01\xfb", b"\x0f\x33")
"""RDTSC, RDTSCP, RDRAND and RDSEED, MWAIT, MWAITX, RDPMC: what they give or wait for is chance."""
_DEVICES: Final = re.compile(rb"([\xe4-\xe7])[^\x18\x80]", re.DOTALL)
"""IN and OUT, or what may become one: the two machines differ in their devices."""
_REX_AH: Final = re.compile(rb"[\x40-\x4f]([\x9e\x9f])")
"""LAHF and SAHF with REX: Unicorn takes SPL for AH (translate.c, gen_op_mov_v_reg)."""
_END: Final = bytes((0xCD, places.END_VECTOR)) * 2


def _parts(group: Group, bits: int) -> tuple[tuple[tuple[Part, ...], ...], tuple[int, ...]]:
    """Return the rows of a group that code of some width has, and their weights."""
    rows = [row for row in group.rows if bits in row.bits]
    return tuple(tuple(map(part, row.text.split())) for row in rows), tuple(row.weight for row in rows)


_GROUPS: Final = {bits: [_parts(group, bits) for group in GROUPS.values()] for bits in ANY}
_WEIGHTS: Final = [group.weight for group in GROUPS.values()]


def instruction(c: Coder) -> bytes:
    """Return what is chosen as one: an instruction, or some that belong together."""
    rows, weights = c.rng.choices(_GROUPS[c.bits], _WEIGHTS)[0]
    return b"".join(make(c) for make in c.rng.choices(rows, weights)[0])


def write(c: Coder) -> bytes:
    """Return a program's code."""
    rng = c.rng
    if rng.random() < 0.15:
        data = b"".join(PARTS["raw"](c) for _ in range(rng.randrange(2, 12)))
    else:
        count = rng.choice((2, 4, 8, 16))
        data = b"".join(
            make(c)
            for rows, weights in rng.choices(_GROUPS[c.bits], _WEIGHTS, k=rng.randrange(1, count + 1))
            for make in rng.choices(rows, weights)[0]
        )
    for timed in _TIMED:
        data = data.replace(timed, b"\x0f\x0b")
    if c.bits == 64:
        data = _REX_AH.sub(b"\x90\\1", data)
    return _DEVICES.sub(b"\\1\x80", data) + _END
