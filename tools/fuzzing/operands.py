"""What the notation of `instructions` means: each of its parts becomes bytes for one CPU mode, by chance."""

import random
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from . import places, tables
from .values import EDGES, address, selector, value


class Coder(NamedTuple):
    """What an instruction is made with."""

    rng: random.Random
    bits: int
    mode: str
    cpl: int

    @property
    def size(self) -> int:
        """Bytes of an immediate: a word or a doubleword (the manual's z)."""
        return min(4, self.bits // 8)

    def little(self, value: int, size: int | None = None) -> bytes:
        """Return a value as bytes, cut to a size; by default that of an immediate."""
        size = self.size if size is None else size
        return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


Part: TypeAlias = Callable[[Coder], bytes]

EXCLUDED: Final = frozenset((*range(0x6C, 0x70), *range(0xE4, 0xE8), *range(0xEC, 0xF0), 0xC4, 0xC5))
"""Not in random code: port accesses, which reach devices, and VEX, which Unicorn executes and its CPUID lacks."""
_CR0_BITS: Final = ((1, 2, 3, 5, 16, 18, 30, 31, 6), (1, 2, 3, 5, 16, 18, 30, 0, 6))
"""Bits to change where paging is on, and in real mode. CR0.PG without PE and long mode without CR4.PAE are #GP, but
neither processor says so.
"""
_CR4_BITS: Final = (tuple(range(24)), tuple(bit for bit in range(24) if bit != 5))
_MSRS: Final = (
    *(0x174, 0x175, 0x176),
    *(0xC000_0080, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084),
    *(0xC000_0100, 0xC000_0101, 0xC000_0102),
    *(0xC001_0114, 0xC001_0117),
)
"""Registers that the VMCB holds, and those that show SVM."""
_PORTS: Final = (0x18, 0x80, 0x1234, 0x5678)
"""Ports where no machine has a device, or one without effect."""
_POPPED_FLAGS: Final = (0x102, 0x302, 0x4_0002, 0x4002, 0x3202, 0x2_0002, 0x18_0002)
_IRET_FLAGS: Final = (0x2, 0x202, 0x102, 0x3202, 0x4002, 0x2_0002, 0x2_3202, 0x1_0002, 0x4_0002)
_SIXTEEN: Final = ("real", "v86")
"""Modes whose selectors are paragraphs."""


def modrm(c: Coder, reg: int, *, memory: bool = False) -> bytes:
    """Return ModRM, SIB and displacement; `memory`: never of a register."""
    rng = c.rng
    if not memory and rng.random() < 0.35:
        return bytes((0xC0 | reg << 3 | rng.randrange(8),))
    mod, rm = rng.randrange(3), rng.randrange(8)
    if c.bits == 16:
        size = 2 if mod == 2 or (mod == 0 and rm == 6) else mod
        return bytes((mod << 6 | reg << 3 | rm,)) + c.little(address(rng, c.mode), size)
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


def _raw(c: Coder) -> bytes:
    """Return random bytes but `EXCLUDED`; nor 0x67 in real mode: no limit is checked there, and memory has an end."""
    count = c.rng.randrange(1, 12)
    return bytes(
        byte for byte in c.rng.randbytes(count) if byte not in EXCLUDED and not (byte == 0x67 and c.mode == "real")
    )


def _code_selector(c: Coder) -> int:
    if c.rng.random() >= 0.4:
        return selector(c.rng, c.mode, c.cpl)
    return 0x1500 if c.mode in _SIXTEEN else (tables.CODE_0 + 2 * c.cpl) << 3 | c.cpl


def _stack_selector(c: Coder) -> int:
    return selector(c.rng, c.mode, c.cpl) if c.rng.random() < 0.5 else (tables.DATA_0 + 2 * c.cpl) << 3 | c.cpl


def _code_offset(c: Coder) -> int:
    """Return an offset into the code, which is in the lower half of its page."""
    offset = c.rng.randrange(0x80, 0x100)
    if c.mode in _SIXTEEN:
        return offset
    return (places.CODE - places.BASE if c.mode == "pm16" else places.CODE) + offset


def _cr0_bit(c: Coder) -> int:
    return 1 << c.rng.choice(_CR0_BITS[c.mode == "real"])


def _cr4_bit(c: Coder) -> int:
    return 1 << c.rng.choice(_CR4_BITS[c.mode in ("long", "compat")])


PARTS: Final[dict[str, Part]] = {
    "prefixes": _prefixes,
    "o32": lambda c: b"\x66" if c.bits == 16 else b"",
    "o64": lambda c: b"\x48" if c.bits == 64 else b"",
    "raw": _raw,
    "ib": lambda c: bytes((c.rng.getrandbits(8),)),
    "value": lambda c: c.little(value(c.rng, c.mode, c.cpl)),
    "value32": lambda c: c.little(value(c.rng, c.mode, c.cpl), 4),
    "value64": lambda c: c.little(value(c.rng, c.mode, c.cpl), 8),
    "address": lambda c: c.little(address(c.rng, c.mode)),
    "frame": lambda c: c.little(c.rng.choice((0, 8, 0x1000)), 2),
    "ahead": lambda c: c.little(c.rng.randrange(8)),
    "selector": lambda c: c.little(selector(c.rng, c.mode, c.cpl)),
    "stack": lambda c: c.little(_stack_selector(c)),
    "cs": lambda c: c.little(_code_selector(c)),
    "cs16": lambda c: c.little(_code_selector(c), 2),
    "offset": lambda c: c.little(_code_offset(c)),
    "flags": lambda c: c.little(c.rng.choice((*_POPPED_FLAGS, c.rng.getrandbits(22)))),
    "iflags": lambda c: c.little(c.rng.choice((*_IRET_FLAGS, c.rng.getrandbits(22)))),
    "port": lambda c: c.little(c.rng.choice(_PORTS)),
    "msr": lambda c: c.little(c.rng.choice(_MSRS), 4),
    "high": lambda c: c.little(c.rng.choice((0, 0, 0xFFFF_FFFF, 0x7FFF)), 4),
    "cr0-bit": lambda c: c.little(_cr0_bit(c), 4),
    "cr3-bit": lambda c: c.little(1 << c.rng.choice((3, 4, 12)), 4),
    "cr4-bit": lambda c: c.little(_cr4_bit(c), 4),
}
"""Parts with a name: `o32` and `o64` are the prefixes that make a doubleword of a word and a quadword of a doubleword,
`cs` and `offset` lead into the code, `ahead` is a short way forward; immediates have the size of `Coder.size`.
"""


def part(text: str) -> Part:
    """Return what a part of a row means; ValueError if it means nothing."""
    if text in PARTS:
        return PARTS[text]
    if not text.startswith("/"):
        choices = _choices(text, 16)
        return lambda c: c.rng.choice(choices)
    memory = text.endswith("m")
    if text in ("/r", "/m"):
        return lambda c: modrm(c, c.rng.randrange(8), memory=memory)
    digits = [data[0] for data in _choices(text[1:].removesuffix("m"), 10)]
    return lambda c: modrm(c, c.rng.choice(digits), memory=memory)


def _choices(text: str, base: int) -> list[bytes]:
    """Return the bytes that a list of numbers and ranges names; a point names none."""
    found: list[bytes] = []
    for item in text.split(","):
        first, _, last = item.partition("-")
        found += [b""] if item == "." else [bytes((n,)) for n in range(int(first, base), int(last or first, base) + 1)]
    return found
