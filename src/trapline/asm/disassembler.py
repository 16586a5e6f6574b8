"""Bytes of code as lines of assembly, in the syntax of Intel's manuals or of AT&T's assembler."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import iced_x86 as iced

from .decoder import new_decoder

SYNTAXES: Final = ("intel", "att")


class Instruction(NamedTuple):
    """A decoded instruction."""

    address: int
    """Linear."""
    data: bytes
    """Its bytes."""
    text: str
    """In assembly; `(bad)` where the bytes are not an instruction, or too few."""


def disassemble(
    code: bytes, address: int, bits: int, *, syntax: str = "intel", count: int = 1 << 30
) -> list[Instruction]:
    """Decode up to `count` instructions one after the other; `bits` is the size of code: 16, 32 or 64.

    `address` is that of the first byte, and what relative jumps are shown against. After a byte that does not
    start an instruction the next byte is tried.
    """
    return list(_lines(code, address, bits, syntax, count))


def instruction(code: bytes, address: int, bits: int, *, syntax: str = "intel") -> str | None:
    """Return the first instruction; None without a byte of it."""
    lines = disassemble(code, address, bits, syntax=syntax, count=1)
    return lines[0].text if lines else None


def around(
    code: bytes, address: int, at: int, bits: int, *, syntax: str = "intel", before: int = 3, after: int = 3
) -> list[Instruction]:
    """Decode the instruction at `at` with some before and after it; `code` starts at `address`.

    x86 cannot be read backwards: what is shown before is the longest run of instructions that leads there.
    """
    place = at - address
    lines: list[Instruction] = []
    for start in range(max(place, 0)):
        lines = disassemble(code[start:place], address + start, bits, syntax=syntax)
        if all(line.text != _BAD for line in lines):
            break
        lines = []
    return lines[-before:] + disassemble(code[place:], at, bits, syntax=syntax, count=after + 1)


_BAD: Final = "(bad)"


def _lines(code: bytes, address: int, bits: int, syntax: str, count: int) -> Iterator[Instruction]:
    formatter = iced.Formatter(iced.FormatterSyntax.INTEL if syntax == "intel" else iced.FormatterSyntax.GAS)
    formatter.hex_prefix, formatter.hex_suffix = "0x", ""
    formatter.uppercase_hex = False
    formatter.space_after_operand_separator = True
    formatter.branch_leading_zeros = False
    formatter.show_branch_size = False
    place = 0
    decoder = new_decoder(code, bits, address)
    while place < len(code) and count:
        decoder.position, decoder.ip = place, address + place
        instruction = decoder.decode()
        bad = instruction.is_invalid
        length = 1 if bad else instruction.len
        text = _BAD if bad else formatter.format(instruction)
        yield Instruction(address + place, code[place : place + length], text)
        place, count = place + length, count - 1
