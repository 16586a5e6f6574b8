"""Registers, threads and memory as packets carry them."""

from collections.abc import Sequence
from typing import Final

from trapline.arch.bits import M32
from trapline.debugger import registers
from trapline.debugger.registers import Register
from trapline.debugger.target import Target
from trapline.errors import FaultError, UsageError
from trapline.machine.linear import address_mask, code_base, read_mapped

from .target_xml import PC, STALE, Layout, Row

_ORDER: Final = "little"


def read_register(target: Target, row: Row, *, stale: bool) -> bytes:
    """Return a register in hexadecimal, `xx` for each byte that is not available."""
    size = row.bits // 8
    value = _value(target, row, stale)
    if value is None:
        return b"xx" * size
    return (value & (1 << row.bits) - 1).to_bytes(size, _ORDER).hex().encode()


def write_register(target: Target, row: Row, data: bytes) -> None:
    """Set a register. One narrower than ours keeps the rest. Raises UsageError for what cannot be written."""
    value = int.from_bytes(data, _ORDER)
    if len(data) * 8 != row.bits:
        raise UsageError(f"{row.name} has {row.bits} bits")
    if row.source == PC:
        save = target.cpu.registers.save
        target.cpu.registers.rip = value - code_base(save) & address_mask(save)
        return
    if not isinstance(row.source, Register):
        raise UsageError(f"{row.name} cannot be written")
    source = row.source
    if row.bits >= source.bits:
        value &= source.limit - 1
    else:
        value |= (registers.read(target, source) or 0) & ~((1 << row.bits) - 1)
    registers.write(target, source, value)


def read_all(target: Target, layout: Layout, *, stale: bool) -> bytes:
    """Return the registers that go together in hexadecimal, in the order of the layout."""
    return b"".join(read_register(target, row, stale=stale) for row in layout.together)


def write_all(target: Target, rows: Sequence[Row], data: bytes) -> None:
    """Set the registers whose values differ: some are not available, and some cannot be written."""
    place = 0
    for row in rows:
        size = row.bits // 8
        part = data[place : place + size]
        place += size
        if len(part) < size:
            raise UsageError("too few registers")
        before = read_register(target, row, stale=False)
        if b"x" not in before and part.hex().encode() != before and row.source != STALE:
            write_register(target, row, part)


def read_memory(target: Target, address: int, size: int, *, physical: bool) -> bytes:
    """Return memory, at a linear address or at a gpa: as much as there is. Raises FaultError where nothing is."""
    if physical:
        return target.machine.memory.read(address, size)
    registers = target.cpu.registers
    registers.check(False)
    found = read_mapped(registers.save, target.machine.session.processor.memory, address, size)
    if size and not found:
        raise FaultError(address, "nothing is mapped")
    return found


def write_memory(target: Target, address: int, data: bytes, *, physical: bool) -> None:
    """Store bytes at a linear address or at a gpa. Raises FaultError."""
    if physical:
        target.machine.memory.write(address, data)
    else:
        target.cpu.write(address, data)


def sign_extended(address: int) -> int:
    """Return a 32-bit address as 64-bit code would have it in the highest 2 GiB."""
    return address | (-1 << 32 & (1 << 64) - 1) if address & 1 << 31 and address <= M32 else address


def _value(target: Target, row: Row, stale: bool) -> int | None:
    if row.source == PC:
        return target.cpu.address
    if row.source == STALE:
        return int(stale)
    return registers.read(target, row.source) if isinstance(row.source, Register) else None
