"""Random code: instructions that raise exceptions in every way, plain ones between them, and random bytes."""

import random
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from . import places, tables
from .values import EDGES, address, selector, value


class Coder(NamedTuple):
    """What an instruction is made with."""

    rng: random.Random
    bits: int
    mode: str
    cpl: int

    @property
    def word(self) -> int:
        """Bytes of a value that PUSH and IRET take by default."""
        return self.bits // 8

    def little(self, value: int, size: int) -> bytes:
        """Return a value as bytes, cut to a size."""
        return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


_PORTS: Final = (0x18, 0x80, 0x1234, 0x5678)
"""Ports where no machine has a device, or one without effect."""
EXCLUDED: Final = frozenset((*range(0x6C, 0x70), *range(0xE4, 0xE8), *range(0xEC, 0xF0), 0xC4, 0xC5))
"""Not in random code: port accesses, which reach devices, and VEX, which Unicorn executes and its CPUID lacks."""
_CR0_BITS: Final = ((1, 2, 3, 5, 16, 18, 30, 31, 6), (1, 2, 3, 5, 16, 18, 30, 0, 6))
"""Bits to change where paging is on, and in real mode. CR0.PG without PE and long mode without CR4.PAE are #GP, but
neither processor says so.
"""
_CR4_BITS: Final = (tuple(range(24)), tuple(bit for bit in range(24) if bit != 5))
_MSRS: Final = (
    0x174,
    0x175,
    0x176,
    0xC000_0080,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC001_0114,
    0xC001_0117,
)
"""Registers that the VMCB holds, and those that show SVM."""


def modrm(c: Coder, reg: int, *, memory: bool | None = None) -> bytes:
    """Return ModRM, SIB and displacement; `memory` True or False forces an operand of that kind."""
    rng = c.rng
    register = rng.random() < 0.35 if memory is None else not memory
    if register:
        return bytes((0xC0 | reg << 3 | rng.randrange(8),))
    if c.bits == 16:
        mod, rm = rng.randrange(3), rng.randrange(8)
        size = 2 if mod == 2 or (mod == 0 and rm == 6) else mod
        return bytes((mod << 6 | reg << 3 | rm,)) + c.little(address(rng, c.mode), size)
    mod, rm = rng.randrange(3), rng.randrange(8)
    if mod == 2 and rng.random() < 0.7:
        mod, rm = 0, 5
    data = bytes((mod << 6 | reg << 3 | rm,))
    wide = mod == 2 or (mod == 0 and rm == 5)
    if rm == 4:
        sib = rng.randrange(256)
        data += bytes((sib,))
        wide = wide or (mod == 0 and sib & 7 == 5)
    if wide:
        return data + c.little(address(rng, c.mode), 4)
    return data + (bytes((rng.choice(EDGES) & 0xFF,)) if mod == 1 else b"")


def _prefixes(c: Coder) -> bytes:
    rng = c.rng
    data = b""
    if rng.random() < 0.12:
        data += b"\x66"
    if rng.random() < 0.04:
        data += bytes((rng.choice((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)),))
    if rng.random() < 0.02:
        data += bytes((rng.choice((0x67, 0xF0, 0xF2, 0xF3)[c.mode == "real" :]),))
    if c.bits == 64 and rng.random() < 0.4:
        data += bytes((rng.choice((0x48, 0x48, rng.randrange(0x40, 0x50))),))
    return data


def _arithmetic(c: Coder) -> bytes:
    rng = c.rng
    reg = rng.randrange(8)
    kind = rng.randrange(9)
    if kind < 3:
        return _prefixes(c) + bytes((rng.randrange(8) << 3 | rng.randrange(4),)) + modrm(c, reg)
    if kind < 5:
        return (
            _prefixes(c) + bytes((rng.choice((0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8B)),)) + modrm(c, reg)
        )
    if kind == 5:
        return _prefixes(c) + bytes((0x80 | rng.choice((0, 3)),)) + modrm(c, reg) + bytes((rng.getrandbits(8),))
    if kind == 6:
        return (
            _prefixes(c)
            + bytes((rng.choice((0xD0, 0xD1, 0xD2, 0xD3, 0xFE, 0xF6, 0xF7)),))
            + modrm(c, rng.choice((2, 3, 4, 5, 0)))
            + (b"\x01\x02\x03\x04" if rng.random() < 0.1 else b"")
        )
    if kind == 7:
        codes: tuple[int, ...] = (
            0xAF,
            0xB6,
            0xB7,
            0xBE,
            0xBF,
            0xA3,
            0xAB,
            0xB3,
            0xBB,
            0xBC,
            0xBD,
            0xB0,
            0xB1,
            0xC0,
            0xC1,
            0xA5,
            0xAD,
        )
        codes += tuple(range(0x40, 0x50)) + tuple(range(0x90, 0xA0))
        return _prefixes(c) + b"\x0f" + bytes((rng.choice(codes),)) + modrm(c, reg)
    return _prefixes(c) + bytes(
        (
            rng.choice(
                (
                    0x90,
                    0x98,
                    0x99,
                    0xF5,
                    0xF8,
                    0xF9,
                    0xFC,
                    0xFD,
                    0x9F,
                    0x9E,
                    0xA4,
                    0xA5,
                    0xAA,
                    0xAB,
                    0xAC,
                    0xA6,
                    0xAE,
                    0xD7,
                )
            ),
        )
    )


def _set_register(c: Coder) -> bytes:
    rng = c.rng
    number = rng.choice((0, 1, 2, 3, 5, 6, 7))
    if c.bits == 64 and rng.random() < 0.5:
        return bytes((0x48, 0xB8 | number)) + c.little(value(rng, c.mode, c.cpl), 8)
    return bytes((0xB8 | number,)) + c.little(value(rng, c.mode, c.cpl), min(4, c.word))


def _divide(c: Coder) -> bytes:
    if c.rng.random() < 0.3 and c.bits != 64:
        return b"\xd4\x00"  # AAM 0
    return _prefixes(c) + bytes((c.rng.choice((0xF6, 0xF7)),)) + modrm(c, c.rng.choice((6, 7)))


def _software(c: Coder) -> bytes:
    rng = c.rng
    kind = rng.randrange(6)
    if kind == 0:
        return b"\xcc"
    if kind == 1:
        return b"\xce"
    if kind == 2:
        return b"\xcd" + bytes((rng.choice((3, 4, 0, 13, 14, 0x80, 0x80, rng.getrandbits(8))),))
    if kind == 3:
        return b"\x62" + modrm(c, rng.randrange(8), memory=True) if c.bits != 64 else b"\x0f\x0b"
    if kind == 4:
        return rng.choice(
            (b"\x0f\x0b", b"\x0f\xff", b"\x0f\xb9\xc0", b"\xf0\x90", b"\x0f\x0a", b"\x0f\x01\xd9", b"\x0f\x01\xda")
        )
    return b"\xb0\x7f\x04\x7f\xce"  # an overflow, then INTO


def _segments(c: Coder) -> bytes:
    rng = c.rng
    kind = rng.randrange(8)
    chosen = c.little(selector(rng, c.mode, c.cpl), 2)
    if kind < 4:
        load = b"\xb8" + chosen + (b"\0\0" if c.bits != 16 else b"")
        return load + b"\x8e" + bytes((0xC0 | rng.choice((0, 2, 2, 3, 4, 5, 1, 6)) << 3,))
    if kind == 4:
        return (
            b"\x68"
            + chosen
            + (b"\0\0" if c.bits != 16 else b"")
            + rng.choice((b"\x07", b"\x17", b"\x1f", b"\x0f\xa1", b"\x0f\xa9"))
        )
    if kind == 5:
        short: tuple[bytes, ...] = () if c.bits == 64 else (b"\xc4", b"\xc5")  # there they are VEX
        opcode = rng.choice((*short, b"\x0f\xb2", b"\x0f\xb4", b"\x0f\xb5"))
        return opcode + modrm(c, rng.randrange(8), memory=True)
    if kind == 6:
        return b"\x0f" + bytes((rng.choice((2, 3)),)) + modrm(c, rng.randrange(8))
    return b"\x0f\x00" + modrm(c, rng.choice((0, 1, 2, 3, 4, 5, 6)))


def _far(c: Coder) -> bytes:
    rng = c.rng
    size = min(4, c.word)
    offset = _code_offset(c)
    chosen = selector(rng, c.mode, c.cpl)
    if rng.random() < 0.4:
        chosen = 0x1500 if c.mode in ("real", "v86") else (tables.CODE_0 + 2 * c.cpl) << 3 | c.cpl
    if c.mode in ("real", "v86"):
        offset &= 0xFFF
    kind = rng.randrange(6)
    if kind == 0:
        return b"\xea" + c.little(offset, size) + c.little(chosen, 2)
    if kind == 1:
        return b"\x9a" + c.little(offset, size) + c.little(chosen, 2)
    if kind == 2:
        return bytes((0xFF,)) + modrm(c, rng.choice((3, 5)), memory=True)
    push = b"\x68"
    if kind == 3:
        return (
            push + c.little(chosen, size) + push + c.little(offset, size) + (b"\x48" if c.bits == 64 else b"") + b"\xcb"
        )
    flags = rng.choice((0x2, 0x202, 0x102, 0x3202, 0x4002, 0x2_0002, 0x2_3202, 0x1_0002, 0x4_0002, rng.getrandbits(22)))
    data = b""
    if rng.random() < 0.7:
        stack = selector(rng, c.mode, c.cpl) if rng.random() < 0.5 else (tables.DATA_0 + 2 * c.cpl) << 3 | c.cpl
        data += push + c.little(stack, size) + push + c.little(address(rng, c.mode), size)
    data += push + c.little(flags, size) + push + c.little(chosen, size) + push + c.little(offset, size)
    return data + (b"\x48" if c.bits == 64 and rng.random() < 0.9 else b"") + b"\xcf"


def _code_offset(c: Coder) -> int:
    """Return an offset into the code, which stands in the lower half of its page."""
    offset = c.rng.randrange(0x80, 0x100)
    if c.mode in ("real", "v86"):
        return offset
    return (places.CODE - places.BASE if c.mode == "pm16" else places.CODE) + offset


def _stack(c: Coder) -> bytes:
    rng = c.rng
    kind = rng.randrange(7)
    if kind == 0:
        return bytes((0x50 | rng.randrange(8),))
    if kind == 1:
        return bytes((0x58 | rng.choice((0, 1, 2, 3, 5, 6, 7)),))
    if kind == 2:
        return b"\x6a" + bytes((rng.getrandbits(8),))
    if kind == 3:
        return rng.choice((b"\x60", b"\x61", b"\x9c", b"\xc9", b"\x5c"))
    if kind == 4:
        return bytes((0xFF,)) + modrm(c, 6)
    if kind == 5:
        return b"\xbc" + c.little(address(rng, c.mode), min(4, c.word))
    return b"\xc8" + c.little(rng.choice((0, 8, 0x1000)), 2) + bytes((rng.choice((0, 0, 1, 2, 31)),))


def _flags(c: Coder) -> bytes:
    rng = c.rng
    if rng.random() < 0.3:
        return bytes((rng.choice((0xFA, 0xFB)),))
    flags = rng.choice((0x102, 0x302, 0x4_0002, 0x4002, 0x3202, 0x2_0002, 0x18_0002, rng.getrandbits(22)))
    return (
        b"\x68" + c.little(flags, min(4, c.word)) + (b"\x66" if c.bits != 64 and rng.random() < 0.1 else b"") + b"\x9d"
    )


def _ports(c: Coder) -> bytes:
    rng = c.rng
    port = rng.choice(_PORTS)
    if port < 0x100 and rng.random() < 0.5:
        return bytes((rng.choice((0xE4, 0xE5, 0xE6, 0xE7)), port))
    load = b"\xba" + c.little(port, min(4, c.word))
    return load + rng.choice((b"\xec", b"\xed", b"\xee", b"\xef", b"\x6c", b"\x6e", b"\x6d", b"\x6f"))


def _system(c: Coder) -> bytes:
    rng = c.rng
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice((b"\x0f\x06", b"\x0f\x08", b"\x0f\x09", b"\x0f\xaa", b"\xf3\x90", b"\x0f\x77", b"\x9b"))
    if kind == 1:
        wide = b"\x66" if c.bits == 16 else b""
        return (
            (wide + b"\xb9" + c.little(rng.choice(_MSRS), 4))
            + (wide + b"\xb8" + c.little(value(rng, c.mode, c.cpl), 4))
            + (wide + b"\xba" + c.little(rng.choice((0, 0, 0xFFFF_FFFF, 0x7FFF)), 4))
            + rng.choice((b"\x0f\x30", b"\x0f\x32"))
        )
    if kind == 2:
        return rng.choice((b"\x0f\x05", b"\x0f\x07", b"\x48\x0f\x07", b"\x0f\x34", b"\x0f\x35", b"\x0f\x01\xf8"))
    if kind in (3, 4):
        # mov eax, crN; xor eax, bit; mov crN, eax
        number = rng.choice((0, 4, 4, 3))
        bits = {0: _CR0_BITS[c.mode == "real"], 4: _CR4_BITS[c.mode in ("long", "compat")], 3: (3, 4, 12)}[number]
        wide = b"\x66" if c.bits == 16 else b""
        mov = bytes((0xC0 | number << 3,))
        return b"\x0f\x20" + mov + wide + b"\x35" + c.little(1 << rng.choice(bits), 4) + b"\x0f\x22" + mov
    if kind == 5:
        return b"\x0f" + rng.choice((b"\x20", b"\x21")) + bytes((0xC0 | rng.randrange(64),))
    if kind == 6:
        return b"\x0f\x01" + modrm(c, rng.choice((0, 1, 4, 6, 7, 7)))
    if kind == 7:
        return b"\x0f\x01" + modrm(c, rng.choice((2, 3)), memory=True) if rng.random() < 0.3 else b"\x0f\x06"
    if kind == 8:
        return b"\x0f\xae" + modrm(c, rng.choice((2, 3, 7, 5, 6)))
    return rng.choice(
        (b"\x0f\x01\xd0", b"\x0f\x01\xca", b"\x0f\x01\xcb", b"\x0f\x18\x00", b"\x0f\x0d\x00", b"\x0f\x1f\x00")
    )


def _vector(c: Coder) -> bytes:
    rng = c.rng
    if rng.random() < 0.5:
        return rng.choice((b"", b"\x9b")) + bytes((rng.randrange(0xD8, 0xE0),)) + modrm(c, rng.randrange(8))
    code = rng.choice(
        (0x10, 0x11, 0x28, 0x29, 0x58, 0x59, 0x5E, 0x6F, 0x7F, 0x6E, 0x7E, 0xFE, 0xEF, 0xE7, 0x2B, 0x2A, 0x2D)
    )
    return rng.choice((b"", b"\x66", b"\xf3", b"\xf2")) + b"\x0f" + bytes((code,)) + modrm(c, rng.randrange(8))


def _jump(c: Coder) -> bytes:
    rng = c.rng
    kind = rng.randrange(5)
    if kind < 2:
        return bytes((rng.choice((0xEB, *range(0x70, 0x80))), rng.randrange(0, 12)))
    if kind == 2:
        return b"\xe8" + c.little(rng.randrange(0, 8), 2 if c.bits == 16 else 4)
    if kind == 3:
        return rng.choice((b"\xc3", b"\xc2\x04\x00", b"\xe3\x02", b"\xe2\x02"))
    return bytes((0xFF,)) + modrm(c, rng.choice((2, 4)))


def _raw(c: Coder) -> bytes:
    """Random bytes but for `EXCLUDED`, and in real mode for 0x67: no limit is checked, and memory ends somewhere."""
    count = c.rng.randrange(1, 12)
    return bytes(
        byte for byte in c.rng.randbytes(count) if byte not in EXCLUDED and not (byte == 0x67 and c.mode == "real")
    )


_KINDS: Final[tuple[tuple[Callable[[Coder], bytes], int], ...]] = (
    (_arithmetic, 30),
    (_set_register, 14),
    (_divide, 3),
    (_software, 8),
    (_segments, 12),
    (_far, 8),
    (_stack, 10),
    (_flags, 5),
    (_ports, 3),
    (_system, 8),
    (_vector, 7),
    (_jump, 5),
    (_raw, 3),
)
_CHOICES: Final = tuple(kind for kind, _ in _KINDS)
_WEIGHTS: Final = tuple(weight for _, weight in _KINDS)
_TIMED: Final = (b"\x0f\x31", b"\x0f\x01\xf9", b"\x0f\xc7", b"\x0f\x01\xc9", b"\x0f\x01\xfb", b"\x0f\x33")
"""RDTSC, RDTSCP, RDRAND and RDSEED, MWAIT, MWAITX, RDPMC: what they give or wait for is chance."""
_DEVICES: Final = re.compile(rb"([\xe4-\xe7])[^\x18\x80]", re.DOTALL)
"""IN and OUT, or what may become one: the two machines differ in their devices."""
_REX_AH: Final = re.compile(rb"[\x40-\x4f]([\x9e\x9f])")
"""LAHF and SAHF with REX: Unicorn takes SPL for AH (translate.c, gen_op_mov_v_reg)."""
_END: Final = bytes((0xCD, places.END_VECTOR)) * 2


def write(c: Coder) -> bytes:
    """Return a program's code."""
    rng = c.rng
    if rng.random() < 0.15:
        data = b"".join(_raw(c) for _ in range(rng.randrange(2, 12)))
    else:
        count = rng.choice((2, 4, 8, 16))
        data = b"".join(kind(c) for kind in rng.choices(_CHOICES, _WEIGHTS, k=rng.randrange(1, count + 1)))
    for timed in _TIMED:
        data = data.replace(timed, b"\x0f\x0b")
    if c.bits == 64:
        data = _REX_AH.sub(b"\x90\\1", data)
    return _DEVICES.sub(b"\\1\x80", data) + _END
