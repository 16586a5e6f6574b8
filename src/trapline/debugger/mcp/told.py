"""What the library returns, as parts of answers."""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from trapline.arch.error_codes import describe_error_code
from trapline.arch.vectors import mnemonic
from trapline.asm.disassembler import Instruction
from trapline.explain.explanation import Explanation
from trapline.machine.record import GENERAL
from trapline.report.crash import Frame
from trapline.report.result import Count
from trapline.symbols import Symbol
from trapline.trace.exception_record import Outcome, RaisedException

from .answers import Counted, Raised, Why

TAIL: Final = 2048
"""Bytes of the end of the console that are shown."""


class Numbered(RaisedException, Protocol):
    """An exception, of a trace or of a stopped guest."""

    @property
    def seq(self) -> int:
        """Number of the record."""


def raised(record: Numbered, outcome: Outcome | None = None, registers: tuple[int, ...] | None = None) -> Raised:
    """Return an exception."""
    code = record.error_code
    return Raised(
        seq=record.seq,
        name=mnemonic(record.vector),
        error_code=None if code is None else f"{code:#x}",
        meaning=None if not code else describe_error_code(record.vector, code),
        address=hexadecimal(record.address),
        cpl=record.cpl,
        rip=hexadecimal(record.rip),
        place=None if record.symbol is None else str(record.symbol),
        vectoring=None if record.vectoring is None else str(record.vectoring),
        outcome=None if outcome is None else outcome.value,
        registers=None if registers is None else dict(zip(GENERAL, map(hex, registers), strict=True)),
    )


def counted(rows: Iterable[Count]) -> list[Counted]:
    """Return how often exceptions were recorded."""
    return [
        Counted(name=row.vector.mnemonic, count=row.times, first=_at(row.first), last=_at(row.last)) for row in rows
    ]


class _Placed(Protocol):
    @property
    def rip(self) -> int: ...
    @property
    def symbol(self) -> Symbol | None: ...


def _at(place: _Placed) -> str:
    return f"{place.rip:#x}" if place.symbol is None else f"{place.rip:#x} {place.symbol}"


def why(title: str, found: Explanation, seq: int | None = None) -> Why:
    """Return an explanation."""
    cause = found.cause
    if not cause and found.origin is not None:
        cause = found.origin.sentence or str(found.origin)
    return Why(
        title=title,
        seq=seq,
        cause=cause,
        proven=bool(found.causes),
        text=[f"{start}{text}" for start, text in found.paragraphs()],
    )


def code_lines(lines: Iterable[Instruction], at: int | None = None) -> list[str]:
    """Return instructions as text."""
    return [
        f"{'>' if line.address == at else ' '} {line.address:#x}  {line.data.hex(' '):<24}  {line.text}"
        for line in lines
    ]


def callers(frames: Iterable[Frame]) -> list[str]:
    """Return callers as text."""
    return [f"{each.address:#x}" if each.symbol is None else f"{each.address:#x} {each.symbol}" for each in frames]


def tail(console: bytes) -> str:
    """Return the end of what a guest wrote."""
    return console[-TAIL:].decode("utf-8", "replace")


def hexadecimal(value: int | None) -> str | None:
    """Return an address or a value as text."""
    return None if value is None else f"{value:#x}"


def dump(data: bytes, address: int) -> Iterator[str]:
    """Yield the lines of a dump of memory."""
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{address + at:#x}  {row.hex(' '):<47}  {shown}"
