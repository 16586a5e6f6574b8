"""The tools that look at a stopped machine: `registers`, `memory` and `disassemble`."""

from typing import Final

from trapline.arch.mode import mode, paging
from trapline.debugger.registers import Group, group_of, read
from trapline.errors import FaultError, UsageError
from trapline.typed import read_integer

from .machine_answers import CodeAnswer, MemoryAnswer, RegistersAnswer
from .machines import Held
from .told import code_lines, dump

_MASK: Final = (1 << 64) - 1


def registers(held: Held, fpu: bool) -> RegistersAnswer:
    """Return the registers; `fpu`: with those of x87, MMX and SSE, as far as the processor gives them."""
    cpu = held.target.cpu.registers
    state = f"{mode(cpu.save)}, {paging(cpu.save)}"
    found = cpu.to_json()
    for group in (Group.X87, Group.MMX, Group.SSE) if fpu else ():
        values = {register.name: read(held.target, register) for register in group_of(group)}
        found |= {name: f"{value:#x}" for name, value in values.items() if value is not None}
    return RegistersAnswer(machine=held.stored.number, mode=state, registers=found)


def memory(held: Held, address: str, size: int, physical: bool) -> MemoryAnswer:
    """Return memory, up to the first byte that cannot be read. Raises UsageError."""
    at = address_of(held, address)
    reader = held.machine.memory.read if physical else held.target.cpu.read
    note = None
    try:
        data = reader(at, size)
    except FaultError as error:
        readable = error.address - at & _MASK
        note = f"{error}{'' if physical else '; page_walk shows why'}"
        if not 0 < readable < size:
            raise UsageError(note) from error
        data = reader(at, readable)
    symbol = None if physical else held.machine.lookup(at)
    return MemoryAnswer(
        machine=held.stored.number,
        address=f"{at:#x}",
        space="physical" if physical else "linear",
        size=len(data),
        place=None if symbol is None else str(symbol),
        lines=list(dump(data, at)),
        next_address=f"{at + size & _MASK:#x}" if note is None else None,
        note=note,
    )


def disassemble(held: Held, address: str | None, count: int) -> CodeAnswer:
    """Return instructions. Raises UsageError and FaultError."""
    cpu = held.target.cpu
    at = cpu.address if address is None else address_of(held, address)
    lines = cpu.disassemble(count, at)
    if not lines:
        cpu.read(at, 1)  # raises what is wrong
    symbol = held.machine.lookup(at)
    return CodeAnswer(
        machine=held.stored.number,
        bits=cpu.bits,
        place=None if symbol is None else str(symbol),
        lines=code_lines(lines, cpu.address),
        next_address=f"{lines[-1].address + len(lines[-1].data):#x}" if lines else None,
    )


def address_of(held: Held, text: str) -> int:
    """Return an address that is a number, a register such as rsp, or a symbol. Raises UsageError."""
    number = read_integer(text)
    if number is not None:
        return held.machine.resolve(number)
    registers = held.target.cpu.registers.to_json()
    name, plus, offset = text.strip().lower().partition("+")
    if name in registers and (distance := read_integer(offset) if plus else 0) is not None:
        return int(registers[name], 16) + distance & _MASK
    return held.machine.resolve(text)
