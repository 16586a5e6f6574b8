"""A guest whose CPUs raise exceptions at once, each with its number in what is recorded of it, and count them."""

import struct

from tests.acceptance.several import ICR, INIT, OTHERS, STARTUP, multiboot
from trapline.arch.vectors import WITH_ERROR_CODE, Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, CR0, CR3, CR4, DS, DX, EAX, EBP, ECX, ES, ESI, ESP, SS, Mem

TURN = (Vector.UD, Vector.GP, Vector.PF) * 8 + (Vector.BP,)
"""What a CPU raises again and again, with its number in ECX, from 1 on. Python handles #BP, the monitor the rest."""
_SKIPPED = {Vector.UD: 2, Vector.GP: 3, Vector.PF: 6, Vector.BP: 0}
"""The bytes that each handler skips."""
_UNMAPPED, _BEYOND_GDT = 0x4000_0000, 0x8000
"""A #PF's address and a #GP's selector are these and the number, of which a selector has room for 12 bits."""
_TRAMPOLINE, _CODE, _HANDLERS = 0x8000, 0x8100, 0x8400
_GDT, _POINTERS, _IDT = 0x8500, 0x8520, 0x8540
_COUNTS, _GO, _DIRECTORY, _STACKS = 0x8600, 0x8800, 0x9000, 0xB000
_READY, _DONE, _BLOCK = 16, 20, 24
"""In the block of a CPU, after the four counters; and its size."""
_STACK, _HANDLER, _LARGE_PAGE = 0x200, 0x20, 0x40_0000
_FLAT = (0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
_MAPPED = {0: 0x83, 0xFEC0_0000: 0xFEC0_0093, _UNMAPPED: 0}
"""Large pages, by linear address: low memory, and the local APIC without a cache."""


def recorded(numbers):
    """Return what is recorded of the exceptions with these numbers, an array: vectors, error codes and CR2; 0: none."""
    import numpy as np

    vectors = np.array(TURN)[(numbers - 1) % len(TURN)]
    error_codes = np.where(vectors == Vector.GP, _BEYOND_GDT | numbers * 8 & 0x7FF8, 0)
    return vectors, error_codes, np.where(vectors == Vector.PF, _UNMAPPED + numbers, 0)


def counts_of(console):
    """Return how many of each vector each CPU says that it has handled."""
    return [dict(zip(_SKIPPED, counters, strict=True)) for counters in struct.iter_unpack("<4I8x", console)]


def numbering(cpus, times):
    """Return an image whose CPUs raise so many each; CPU 0 then writes what all have counted to the serial port."""
    assert times % len(TURN) == 0
    assert times < _LARGE_PAGE
    code = Assembler(32)
    _settle(code)
    _wait_for_all(code, cpus)
    _raise(code, times)
    _tell(code, cpus, times)

    def first(code):
        code.lgdt(Mem(None, _POINTERS))
        code.mov(ICR, OTHERS | INIT)
        code.mov(ICR, OTHERS | STARTUP | _TRAMPOLINE >> 12)
        code.mov(EAX, _CODE)
        code.jmp(EAX)

    gates = {vector: _HANDLERS + _HANDLER * place for place, vector in enumerate(_SKIPPED)}
    tables = struct.pack("<HIxxHI", 8 * len(_FLAT) - 1, _GDT, 8 * Vector.PF + 7, _IDT)
    parts = [(_TRAMPOLINE, _trampoline()), (_CODE, code.assemble(_CODE))]
    parts += [(at, _handler(place, vector)) for place, (vector, at) in enumerate(gates.items())]
    parts += [(_GDT, struct.pack("<3Q", *_FLAT)), (_POINTERS, tables), (_COUNTS, bytes(_BLOCK * cpus)), (_GO, bytes(4))]
    parts += [(_IDT + 8 * vector, struct.pack("<HHHH", at, 8, 0x8E00, 0)) for vector, at in gates.items()]
    parts += [(_DIRECTORY + 4 * (at // _LARGE_PAGE), struct.pack("<I", entry)) for at, entry in _MAPPED.items()]
    return multiboot(first, parts)


def _trampoline():
    """Where a startup IPI leads: into protected mode."""
    code = Assembler(16)
    code.mov(AX, 0)
    code.mov(DS, AX)
    code.lgdt(Mem(None, _POINTERS))
    code.mov(EAX, 1)
    code.mov(CR0, EAX)
    code.far_jump(8, _CODE)
    return code.assemble(_TRAMPOLINE)


def _settle(code):
    """Any CPU: paging on, a stack of its own, and its block in EBP."""
    code.mov(EAX, 0x10)
    for register in (DS, ES, SS):
        code.mov(register, AX)
    code.lidt(Mem(None, _POINTERS + 8))
    for register, value in ((CR4, 0x10), (CR3, _DIRECTORY), (CR0, 0x8000_0001)):
        code.mov(EAX, value)
        code.mov(register, EAX)
    code.mov(EAX, Mem(None, 0xFEE0_0020))
    code.shr(EAX, 24)
    code.imul(ESP, EAX, _STACK)
    code.add(ESP, _STACKS + _STACK)
    code.imul(EBP, EAX, _BLOCK)
    code.add(EBP, _COUNTS)


def _wait_for_all(code, cpus):
    """They begin at once: CPU 0 says when."""
    code.mov(Mem(EBP, _READY, size=32), 1)
    code.cmp(EBP, _COUNTS)
    code.jne("await")
    _await_each(code, cpus, _READY, 1)
    code.mov(Mem(None, _GO, size=32), 1)
    code.label("await")
    code.pause()
    code.cmp(Mem(None, _GO, size=32), 1)
    code.jne("await")


def _await_each(code, cpus, word, value):
    for number in range(1, cpus):
        code.label(f"{word} of {number}")
        code.pause()
        code.cmp(Mem(None, _COUNTS + _BLOCK * number + word, size=32), value)
        code.jne(f"{word} of {number}")


def _raise(code, times):
    code.mov(ECX, 0)
    code.label("again")
    for vector in TURN:
        code.inc(ECX)
        if vector == Vector.UD:
            code.ud2()
        elif vector == Vector.GP:
            code.mov(EAX, ECX)
            code.shl(EAX, 3)
            code.or_(EAX, _BEYOND_GDT)
            code.mov(ES, AX)
        elif vector == Vector.PF:
            code.mov(AL, Mem(ECX, _UNMAPPED))
        else:
            code.int3()
    code.cmp(ECX, times)
    code.jne("again")
    code.mov(Mem(EBP, _DONE, size=32), ECX)
    code.cmp(EBP, _COUNTS)
    code.je("done")
    code.label("stay")
    code.hlt()
    code.jmp("stay")
    code.label("done")


def _tell(code, cpus, times):
    """CPU 0: wait for the others, write all blocks to the serial port, and end the machine."""
    _await_each(code, cpus, _DONE, times)
    code.mov(ESI, _COUNTS)
    code.label("next")
    code.mov(DX, 0x3FD)
    code.label("full")
    code.in_(AL, DX)
    code.test(AL, 0x20)
    code.je("full")
    code.mov(DX, 0x3F8)
    code.mov(AL, Mem(ESI))
    code.out(DX, AL)
    code.inc(ESI)
    code.cmp(ESI, _COUNTS + _BLOCK * cpus)
    code.jne("next")
    code.mov(EAX, 0)
    code.mov(DX, 0xF4)
    code.out(DX, AL)
    code.label("off")
    code.jmp("off")


def _handler(place, vector):
    code = Assembler(32)
    code.inc(Mem(EBP, 4 * place, size=32))
    if WITH_ERROR_CODE >> vector & 1:
        code.add(ESP, 4)
    code.add(Mem(ESP, size=32), _SKIPPED[vector])
    code.iretd()
    return code.assemble(_HANDLERS + _HANDLER * place)
