"""Guests with several CPUs, from code for each: how a Multiboot image starts them."""

import struct

from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, DS, DX, EAX, ECX, EDX, ESP, SS, Mem

LOADED = 0x10_0000
ICR, ICR2 = Mem(None, 0xFEE0_0300, size=32), Mem(None, 0xFEE0_0310, size=32)
INIT, STARTUP, OTHERS = 0x4500, 0x4600, 0xC_0000
SKIP = bytes.fromhex("5589e5834602025dcf")
"""`push bp; mov bp, sp; add word [bp + 2], 2; pop bp; iret`."""
_SKIP_32 = bytes.fromhex("83042402cf")
"""`add dword [esp], 2; iretd`."""
_HANDLER, _HANDLER_32 = 0x8000, 0x8010
_GDT, _POINTERS, _IDT = 0x8040, 0x8060, 0x8080
_PAGE = 0x1000
_STACK, _COUNTED = 0xE00, 0xF00
"""Offsets in the page of a CPU: its page is 0x8000 plus its number pages."""
_FLAT = (0, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)


def multiboot(code, parts):
    """Return an image for a Multiboot loader that copies code in real mode to low memory, then executes `code`."""
    start = Assembler(32)
    for at, blob in parts:
        for offset in range(0, len(blob), 4):
            word = int.from_bytes(blob[offset : offset + 4].ljust(4, b"\xf4"), "little")
            start.mov(Mem(None, at + offset, size=32), word)
    code(start)
    body = start.assemble(LOADED + 32)
    end = LOADED + 32 + len(body)
    header = struct.pack(
        "<8I", 0x1BADB002, 0x10000, -(0x1BADB002 + 0x10000) & 0xFFFF_FFFF, *[LOADED] * 2, end, end, LOADED + 32
    )
    return header + body


def raising(cpus, times, wait=1):
    """Return an image whose CPUs raise #UD at once, each so often, and count in ECX from 1 on; then CPU 0 ends it.

    `wait`: turns of an empty loop before each.
    """

    def loop(code, number):
        code.mov(ECX, 0)
        code.label("again")
        code.mov(EDX, wait)
        code.label("wait")
        code.dec(EDX)
        code.jne("wait")
        code.inc(ECX)
        code.ud2()
        code.cmp(ECX, times)
        code.jne("again")
        code.mov(Mem(None, _place(number, _COUNTED), size=32), ECX)

    def other(number):
        code = Assembler(16)
        code.mov(AX, 0)
        code.mov(DS, AX)
        code.mov(SS, AX)
        code.mov(ESP, _place(number, _STACK))
        loop(code, number)
        code.label("stay")
        code.hlt()
        code.jmp("stay")
        return code.assemble(_place(number))

    def first(code):
        code.mov(ESP, _place(0, _STACK))
        code.lgdt(Mem(None, _POINTERS))
        code.lidt(Mem(None, _POINTERS + 8))
        code.mov(ICR, OTHERS | INIT)
        for number in range(1, cpus):
            code.mov(ICR2, number << 24)
            code.mov(ICR, STARTUP | _place(number) >> 12)
        loop(code, 0)
        for number in range(1, cpus):
            code.label(f"wait{number}")
            code.pause()
            code.cmp(Mem(None, _place(number, _COUNTED), size=32), times)
            code.jne(f"wait{number}")
        code.mov(EAX, 0)
        code.mov(EDX, 0xF4)
        code.out(DX, AL)
        code.label("stay")
        code.jmp("stay")

    gate = struct.pack("<HHHH", _HANDLER_32, 8, 0x8E00, 0)
    tables = struct.pack("<HIxxHI", 8 * len(_FLAT) - 1, _GDT, 8 * Vector.UD + 7, _IDT)
    parts = [(4 * Vector.UD, struct.pack("<HH", _HANDLER, 0)), (_HANDLER, SKIP), (_HANDLER_32, _SKIP_32)]
    parts += [(_GDT, struct.pack("<3Q", *_FLAT)), (_POINTERS, tables), (_IDT + 8 * Vector.UD, gate)]
    for number in range(1, cpus):
        parts += [(_place(number), other(number)), (_place(number, _COUNTED), bytes(4))]
    return multiboot(first, parts)


def _place(number, offset=0):
    return 0x8000 + _PAGE * number + offset
