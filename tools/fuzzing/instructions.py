"""The instructions that random code is made of, in the manual's notation of opcodes.

A row is a weight in its group, the parts of one or more instructions, and the widths of code that have them. `80,83` is
one of these bytes, `70-7F` one of a range, a point none; `/r` is ModRM with any register, `/6,7` with one of these in
its reg field, `/m` and `/3,5m` with a memory operand only. Names are those of `operands.PARTS`.
"""

from typing import Final, NamedTuple

LEGACY: Final = (16, 32)
LONG: Final = (64,)
ANY: Final = (16, 32, 64)


class Row(NamedTuple):
    """Instructions that are chosen together."""

    weight: int
    text: str
    bits: tuple[int, ...] = ANY


class Group(NamedTuple):
    """Rows of one kind, and how often the kind is chosen."""

    weight: int
    rows: tuple[Row, ...]


_ALU: Final = "00-03,08-0B,10-13,18-1B,20-23,28-2B,30-33,38-3B"
_LONG_OPCODES: Final = "AF,B6,B7,BE,BF,A3,AB,B3,BB,BC,BD,B0,B1,C0,C1,A5,AD,40-4F,90-9F"
_SIMD: Final = "10,11,28,29,58,59,5E,6F,7F,6E,7E,FE,EF,E7,2B,2A,2D"

GROUPS: Final[dict[str, Group]] = {
    "arithmetic": Group(
        30,
        (
            Row(30, f"prefixes {_ALU} /r"),
            Row(20, "prefixes 84,85,86,87,88,89,8A,8B,8B /r"),
            Row(10, "prefixes 80,83 /r ib"),
            Row(9, "prefixes D0-D3,FE,F6,F7 /2,3,4,5,0"),
            Row(1, "prefixes D0-D3,FE,F6,F7 /2,3,4,5,0 01 02 03 04"),
            Row(10, f"prefixes 0F {_LONG_OPCODES} /r"),
            Row(10, "prefixes 90,98,99,F5,F8,F9,FC,FD,9F,9E,A4,A5,AA,AB,AC,A6,AE,D7"),
        ),
    ),
    "registers": Group(14, (Row(1, "B8-BB,BD-BF value"), Row(1, "48 B8-BB,BD-BF value64", LONG))),
    "divide": Group(3, (Row(3, "D4 00", LEGACY), Row(7, "prefixes F6,F7 /6,7"))),
    "software": Group(
        8,
        (
            Row(7, "CC"),
            Row(7, "CE"),
            Row(6, "CD 03,04,00,0D,0E,80,80"),
            Row(1, "CD ib"),
            Row(7, "62 /m", LEGACY),
            Row(7, "0F 0B", LONG),
            Row(3, "0F 0B,FF,0A"),
            Row(1, "0F B9 C0"),
            Row(1, "F0 90"),
            Row(2, "0F 01 D9,DA"),
            Row(7, "B0 7F 04 7F CE"),  # an overflow, then INTO
        ),
    ),
    "segments": Group(
        12,
        (
            Row(20, "B8 selector 8E C0,D0,D0,D8,E0,E8,C8,F0"),
            Row(3, "68 selector 07,17,1F"),
            Row(2, "68 selector 0F A1,A9"),
            Row(2, "C4,C5 /m", LEGACY),  # VEX in 64-bit mode
            Row(3, "0F B2,B4,B5 /m"),
            Row(5, "0F 02,03 /r"),
            Row(5, "0F 00 /0-6"),
        ),
    ),
    "far": Group(
        8,
        (
            Row(20, "EA,9A offset cs16"),
            Row(10, "FF /3,5m"),
            Row(10, "68 cs 68 offset o64 CB"),
            Row(13, "68 stack 68 address 68 iflags 68 cs 68 offset o64 CF"),
            Row(1, "68 stack 68 address 68 iflags 68 cs 68 offset CF"),
            Row(5, "68 iflags 68 cs 68 offset o64 CF"),
            Row(1, "68 iflags 68 cs 68 offset CF"),
        ),
    ),
    "stack": Group(
        10,
        (
            Row(1, "50-57"),
            Row(1, "58-5B,5D-5F"),
            Row(1, "6A ib"),
            Row(1, "60,61,9C,C9,5C"),
            Row(1, "FF /6"),
            Row(1, "BC address"),
            Row(1, "C8 frame 00,00,01,02,1F"),
        ),
    ),
    "flags": Group(5, (Row(3, "FA,FB"), Row(6, "68 flags 9D"), Row(1, "68 flags .,66 9D", LEGACY))),
    "ports": Group(3, (Row(1, "E4-E7 18,80"), Row(3, "BA port EC-EF,6C,6E,6D,6F"))),
    "system": Group(
        8,
        (
            Row(10, "0F 06,08,09,AA,77"),
            Row(2, "F3 90"),
            Row(1, "9B"),
            Row(10, "o32 B9 msr o32 B8 value32 o32 BA high 0F 30,32"),
            Row(8, "0F 05,07,34,35"),
            Row(2, "48 0F 07"),
            Row(2, "0F 01 F8"),
            Row(5, "0F 20 C0 o32 35 cr0-bit 0F 22 C0"),  # mov eax, crN; xor eax, bit; mov crN, eax
            Row(5, "0F 20 D8 o32 35 cr3-bit 0F 22 D8"),
            Row(10, "0F 20 E0 o32 35 cr4-bit 0F 22 E0"),
            Row(10, "0F 20,21 C0-FF"),
            Row(10, "0F 01 /0,1,4,6,7,7"),
            Row(3, "0F 01 /2,3m"),
            Row(7, "0F 06"),
            Row(10, "0F AE /2,3,7,5,6"),
            Row(5, "0F 01 D0,CA,CB"),
            Row(5, "0F 18,0D,1F 00"),
        ),
    ),
    "vector": Group(7, (Row(1, ".,9B D8-DF /r"), Row(1, f".,66,F3,F2 0F {_SIMD} /r"))),
    "jumps": Group(
        5,
        (
            Row(8, "EB,70-7F 00-0B"),
            Row(4, "E8 ahead"),
            Row(1, "C3"),
            Row(1, "C2 04 00"),
            Row(2, "E2,E3 02"),
            Row(4, "FF /2,4"),
        ),
    ),
    "raw": Group(3, (Row(1, "raw"),)),
}
