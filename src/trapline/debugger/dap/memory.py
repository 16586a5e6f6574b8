"""Memory and code, by references: a linear address as 0x1000, or a physical one as phys:0x1000."""

import base64
import binascii
from typing import Final, NamedTuple

from trapline.arch.bits import M64
from trapline.arch.paging import PAGE
from trapline.asm.disassembler import Instruction, disassemble
from trapline.errors import FaultError, UsageError
from trapline.machine.linear import LONGEST, address_mask, read_mapped
from trapline.typed import read_integer

from . import bodies
from .arguments import Disassemble, ReadMemory, WriteMemory
from .debuggee import Debuggee
from .expressions import read_address

PHYSICAL: Final = "phys:"
MOST: Final = 1 << 20
"""Bytes that are read at once."""
_INSTRUCTIONS: Final = 4096
"""Instructions that are decoded at once."""


_UNMAPPED: Final = "(not mapped)"
_BAD: Final = "(bad)"
_LAST: Final = 8
"""Of instructions before an address those that tell whether they lead there: x86 cannot be read backwards."""


class _Place(NamedTuple):
    address: int
    physical: bool

    def text(self, address: int) -> str:
        return f"{PHYSICAL if self.physical else ''}{address:#x}"


def linear(reference: str, offset: int, debuggee: Debuggee) -> int:
    """Return a linear address: a reference, or an expression, with an offset. Raises UsageError and FaultError."""
    place = _place(reference, offset, debuggee)
    if place.physical:
        raise UsageError(f"{reference}: a linear address is needed, not a physical one")
    return place.address


def read(asked: ReadMemory, debuggee: Debuggee) -> bodies.MemoryRead:
    """Return memory up to the first page that is not mapped. Raises UsageError."""
    place = _place(asked.memory_reference, asked.offset, debuggee)
    data = _mapped(place, min(asked.count, MOST), debuggee)
    missing = 0 if len(data) == min(asked.count, MOST) else asked.count - len(data)
    return bodies.MemoryRead(place.text(place.address), missing, base64.b64encode(data).decode() if data else None)


def write(asked: WriteMemory, debuggee: Debuggee) -> bodies.MemoryWritten:
    """Store bytes: all or none, or as many as are mapped where that is allowed. Raises UsageError and FaultError."""
    place = _place(asked.memory_reference, asked.offset, debuggee)
    try:
        data = base64.b64decode(asked.data, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("the data to write are not base64") from None
    if asked.allow_partial:
        data = data[: len(_mapped(place, min(len(data), MOST), debuggee))]
    if place.physical:
        debuggee.machine.memory.write(place.address, data)
    else:
        debuggee.target.cpu.write(place.address, data)
    return bodies.MemoryWritten(len(data))


def disassembled(asked: Disassemble, debuggee: Debuggee) -> bodies.Instructions:
    """Return as many instructions as were asked for: what is not mapped is said in place of one."""
    if asked.instruction_count > _INSTRUCTIONS or abs(asked.instruction_offset) > _INSTRUCTIONS:
        raise UsageError(f"up to {_INSTRUCTIONS:,} instructions are decoded at once")
    at = linear(asked.memory_reference, asked.offset, debuggee)
    before, count = max(0, -asked.instruction_offset), asked.instruction_count
    skipped = max(0, asked.instruction_offset)
    lines = [*_before(at, before, debuggee), *_from(at, skipped + max(0, count - before), debuggee)]
    return bodies.Instructions([_body(line, debuggee, asked) for line in lines[skipped : skipped + count]])


def _place(reference: str, offset: int, debuggee: Debuggee) -> _Place:
    text = reference.removeprefix(PHYSICAL)
    number = read_integer(text)
    address = read_address(text, debuggee) if number is None else number
    return _Place(address + offset & M64, text != reference)


def _mapped(place: _Place, size: int, debuggee: Debuggee) -> bytes:
    if not place.physical:
        vcpu = debuggee.target.cpu.vcpu
        return read_mapped(vcpu.save, vcpu.processor.memory, place.address, size)
    data = b""
    while len(data) < size:
        at = place.address + len(data)
        try:
            data += debuggee.machine.memory.read(at, min(size - len(data), PAGE - at % PAGE))
        except FaultError:
            break
    return data


def _from(at: int, count: int, debuggee: Debuggee) -> list[Instruction]:
    """Return `count` instructions from an address on."""
    lines = debuggee.target.cpu.disassemble(count, at) if count else []
    end = lines[-1].address + len(lines[-1].data) if lines else at
    return lines + [Instruction(end + number & M64, b"", _UNMAPPED) for number in range(count - len(lines))]


def _before(at: int, count: int, debuggee: Debuggee) -> list[Instruction]:
    """Return `count` instructions that lead to an address: within a function from its start, else as they may be."""
    if not count:
        return []
    cpu, symbol = debuggee.target.cpu, debuggee.machine.lookup(at)
    save, memory = cpu.vcpu.save, cpu.vcpu.processor.memory
    lines: list[Instruction] = []
    first = at
    if symbol is not None and 0 < symbol.offset <= count * LONGEST:
        start = at - symbol.offset
        code = read_mapped(save, memory, start, symbol.offset)
        inside = disassemble(code, start, cpu.bits, syntax=debuggee.launch.syntax)
        if len(code) == symbol.offset and sum(len(line.data) for line in inside) == len(code):
            lines, first = inside, start
    lines = lines[-count:]
    if (left := count - len(lines)) > 0:
        lines = _guessed(first, left, debuggee) + lines
    start = lines[0].address if lines else at
    missing = count - len(lines)
    return [Instruction(start - missing + n & M64, b"", _UNMAPPED) for n in range(missing)] + lines


def _guessed(at: int, count: int, debuggee: Debuggee) -> list[Instruction]:
    """Return up to `count` instructions before an address, as far as memory is mapped."""
    cpu = debuggee.target.cpu
    save, memory = cpu.vcpu.save, cpu.vcpu.processor.memory
    start = max(0, at - count * LONGEST)
    while start < at:
        code = read_mapped(save, memory, start & address_mask(save), at - start)
        if len(code) == at - start:
            break
        start = min(at, (start + len(code)) // PAGE * PAGE + PAGE)
    else:
        return []
    ways = [
        disassemble(code[skipped:], start + skipped, cpu.bits, syntax=debuggee.launch.syntax)
        for skipped in range(min(LONGEST, len(code)))
    ]
    return min(ways, key=lambda lines: sum(line.text == _BAD for line in lines[-_LAST:]), default=[])[-count:]


def _body(line: Instruction, debuggee: Debuggee, asked: Disassemble) -> bodies.Instruction:
    symbol = debuggee.machine.lookup(line.address)
    body = bodies.Instruction(f"{line.address:#x}", line.text)
    if line.text in (_UNMAPPED, _BAD):
        body.presentation_hint = "invalid"
    if line.data:
        body.instruction_bytes = line.data.hex(" ")
    if symbol is None:
        return body
    if symbol.offset == 0 or asked.resolve_symbols:
        body.symbol = symbol.place if symbol.offset else symbol.name
    if symbol.file is not None and symbol.line is not None:
        directory = debuggee.machine.session.names.directory(line.address)
        body.location, body.line = debuggee.sources.find(directory, symbol.file), symbol.line
    return body
