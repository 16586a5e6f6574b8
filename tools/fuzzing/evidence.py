"""What a rule needs to know of a difference between Unicorn (first) and QEMU (second)."""

from typing import Final

from trapline.arch.address_space import AddressSpace
from trapline.arch.memory import ReaderMemory
from trapline.arch.paging import IMPLICIT, READ, NotMapped, PageFault
from trapline.arch.registers import EFER
from trapline.arch.vectors import Vector
from trapline.machine.record import Record

from .compare import Difference
from .runner import Run

_PREFIXES: Final = b"\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65"


def only(difference: Difference, *names: str) -> bool:
    """Return whether nothing but these fields differs."""
    return difference.fields.keys() <= set(names)


def pair_of(difference: Difference) -> tuple[Record, Record] | None:
    """Return the records that differ, if both are there."""
    number = difference.record
    if number is None or number >= min(len(difference.first.records), len(difference.second.records)):
        return None
    return difference.first.records[number], difference.second.records[number]


def opcode_of(difference: Difference, record: Record) -> tuple[bytes, bytes]:
    """Return the prefixes of the instruction that raised an exception, and what follows them."""
    at = _physical(difference, record, record.cs_base + record.rip)
    text = difference.first.memory[at : at + 15]
    rest = text.lstrip(_PREFIXES)
    if record.efer & EFER.LMA:
        rest = rest[1:] if rest[:1] and rest[0] & 0xF0 == 0x40 else rest
    return text[: len(text) - len(rest)], rest


def _physical(difference: Difference, record: Record, gva: int) -> int:
    """Return where an instruction is in the arena, by the page tables as they are at the end."""
    arena = difference.first.memory
    memory = ReaderMemory(lambda gpa, size: arena[gpa : gpa + size].ljust(size, b"\xff"))
    space = AddressSpace(memory, record.cr0, record.cr3, record.cr4, record.efer, 40)
    try:
        return space.translate(gva & space.mask, READ | IMPLICIT)
    except (PageFault, NotMapped):
        return gva


def theirs_of(difference: Difference, vector: Vector) -> Record | None:
    """Return QEMU's record where Unicorn's differs or is not there, if it is of this vector."""
    return _of(difference, difference.second, vector)


def ours_of(difference: Difference, vector: Vector) -> Record | None:
    """Return Unicorn's record where QEMU's differs or is not there, if it is of this vector."""
    return _of(difference, difference.first, vector)


def _of(difference: Difference, run: Run, vector: Vector) -> Record | None:
    number, records = difference.record, run.records
    return (
        records[number] if number is not None and number < len(records) and records[number].vector == vector else None
    )
