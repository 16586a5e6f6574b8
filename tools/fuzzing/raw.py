"""Random code without a header, as `trapline run --entry-mode` takes it."""

import random
import struct
from typing import Final

from trapline.arch.vectors import Vector

from . import code, operands

LOAD: Final = 0x10_0000
BODY: Final = LOAD + 0x400
"""Where `handled` continues."""
_MODES: Final = {16: "real", 32: "pm32", 64: "long"}
_NO_HANDLERS: Final = bytes.fromhex("0f011e077c eb06 000000000000")
"""16-bit code, at 0x7C00: lidt with a limit of 0; else it would execute zeros after an exception, for ever."""
_TIMES: Final = 50
"""Fewer exceptions than are kept before they are written."""


def handled(body: bytes, times: int) -> bytes:
    """Return 64-bit code that raises #UD so many times, with a handler that skips it, and continues with `body`."""
    handler, table = LOAD + 0x100, LOAD + 0x210
    gates = struct.pack("<HHHHQ", handler & 0xFFFF, 0x08, 0x8E00, handler >> 16, 0).rjust(16 * (Vector.UD + 1), b"\0")
    start = b"\x0f\x01\x1c\x25" + struct.pack("<I", LOAD + 0x200)  # lidt
    start += struct.pack("<BI", 0xB9, times) + b"\x0f\x0b\xff\xc9\x75\xfa"  # mov ecx; ud2, dec ecx, jnz
    start += b"\xe9" + struct.pack("<i", BODY - LOAD - len(start) - 5)  # jmp: another block
    skip = b"\x48\x83\x04\x24\x02\x48\xcf"  # add qword [rsp], 2; iretq
    begin = start.ljust(0x100, b"\x90") + skip.ljust(0x100, b"\x90")
    begin += struct.pack("<HQ", len(gates) - 1, table).ljust(16, b"\0") + gates
    return begin.ljust(BODY - LOAD, b"\0") + body


def generate(seed: str) -> tuple[int, bytes]:
    """Return the width and the code of a seed: the same always. Half of it repeats one instruction often."""
    rng = random.Random(seed)
    bits = rng.choice(tuple(_MODES))
    coder = operands.Coder(rng, bits, _MODES[bits], 0)
    if rng.random() < 0.5:
        body = code.write(coder) * rng.choice((1, 1, 4, 32))
    else:
        body = _instruction(coder) * rng.randrange(1, 600)
    body += b"\xfa\xf4"  # cli; hlt
    if bits == 64:
        return bits, handled(body, _TIMES)
    return bits, _NO_HANDLERS + body if bits == 16 else body


def _instruction(c: operands.Coder) -> bytes:
    rng = c.rng
    kind = rng.randrange(4)
    if kind == 0:
        return bytes((rng.randrange(0xD8, 0xE0), rng.randrange(0xC0, 0x100)))  # x87 on registers
    if kind == 1:
        prefix = rng.choice((b"", b"\x66", b"\xf2", b"\xf3", b"\xf0"))
        return prefix + bytes((0x0F, rng.randrange(0x100), rng.randrange(0xC0, 0x100), rng.randrange(0x100)))
    return code.instruction(c)
