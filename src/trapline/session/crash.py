"""Makes the `CrashContext` of a stopped guest: registers, code at RIP, callers and stack."""

from typing import Final

from trapline.arch.paging import PAGE
from trapline.asm.disassembler import around
from trapline.machine.linear import (
    address_mask,
    code_address,
    code_base,
    code_bits,
    read_mapped,
    stack_address,
    stack_base,
    stack_pointer,
)
from trapline.machine.memory import GuestMemory
from trapline.machine.registers import GENERAL, Registers
from trapline.report.crash import CrashContext, Frame, StackEntry
from trapline.symbols import Names, backtrace, unwind
from trapline.symbols.backtrace import stack_values

_BEFORE: Final = 48
"""Bytes of code before the instruction."""
_AFTER: Final = 64


def crash_context(registers: Registers, memory: GuestMemory, names: Names, syntax: str) -> CrashContext:
    """Return the context; what is not mapped is left out."""
    save, bits = registers.save, code_bits(registers.save)
    address = code_address(save)
    start, code = _code(registers, memory, address)
    pointer = stack_pointer(save)
    return CrashContext(
        registers.copy(),
        bits,
        address,
        names.lookup(address),
        tuple(around(code, start, address, bits, syntax=syntax)),
        callers(registers, memory, names),
        stack_address(save),
        tuple(
            StackEntry(value, names.caller(value))
            for value in stack_values(lambda offset, size: _stack(registers, memory, offset, size), pointer, bits)
        ),
    )


def callers(registers: Registers, memory: GuestMemory, names: Names) -> tuple[Frame, ...]:
    """Return the callers, innermost first.

    By the call frame information of symbols, or else by frame pointers; empty where the guest keeps none of these.
    """
    return _unwound(registers, memory, names) or _by_frame_pointers(registers, memory, names)


def _unwound(registers: Registers, memory: GuestMemory, names: Names) -> tuple[Frame, ...]:
    save = registers.save
    mask = address_mask(save)
    found = unwind(
        lambda offset, size: _stack(registers, memory, offset, size),
        {name: getattr(registers, name) & mask for name in GENERAL},
        code_address(save),
        code_bits(save),
        names.row,
        lambda address: names.caller(address) is not None,
    )
    return tuple(Frame(address, names.caller(address)) for address in found)


def _by_frame_pointers(registers: Registers, memory: GuestMemory, names: Names) -> tuple[Frame, ...]:
    save, bits = registers.save, code_bits(registers.save)
    mask, base = address_mask(save), code_base(save)

    def is_code(rip: int) -> bool:
        address = base + rip & mask
        mapped = read_mapped(save, memory, address, 1)
        return bool(mapped) and (not names.files or names.caller(address) is not None)

    def stack(offset: int, size: int) -> bytes:
        return _stack(registers, memory, offset, size)

    found = backtrace(stack, registers.rbp & mask, stack_pointer(save), bits, is_code)
    addresses = [base + frame.address & mask for frame in found]
    return tuple(Frame(address, names.caller(address), guessed=True) for address in addresses)


def _stack(registers: Registers, memory: GuestMemory, offset: int, size: int) -> bytes:
    save = registers.save
    return read_mapped(save, memory, stack_base(save) + offset & address_mask(save), size)


def _code(registers: Registers, memory: GuestMemory, address: int) -> tuple[int, bytes]:
    """Return the address of mapped code before an instruction, and the code from there on."""
    save, mask = registers.save, address_mask(registers.save)
    after = read_mapped(save, memory, address, _AFTER)
    for start in (max(address - _BEFORE, 0), address & -PAGE):  # the previous page may not be mapped
        before = read_mapped(save, memory, start & mask, address - start)
        if len(before) == address - start:
            return start, before + after
    return address, after
