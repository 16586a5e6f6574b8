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
HANDLER, HANDLER_32 = 0x8000, 0x8010
_GDT, _POINTERS, _IDT = 0x8040, 0x8060, 0x8080
_PAGE = 0x1000
_STACK, _COUNTED = 0xE00, 0xF00
"""Offsets in the page of a CPU: its page is 0x8000 plus its number pages."""
BOTH, FIRST, SECOND, ALONE = 0x8800, 0x8900, 0x8A00, 0x8B00
"""Where `calling` has the code that both CPUs call, and what one of them calls."""
VALUE = 0x9000
"""A word of 4 bytes, 0 at first, that is the exit status of `calling`."""
OTHER, _HERE, _THERE = 0x8000, 0x9010, 0x9014
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

    gate = struct.pack("<HHHH", HANDLER_32, 8, 0x8E00, 0)
    tables = struct.pack("<HIxxHI", 8 * len(_FLAT) - 1, _GDT, 8 * Vector.UD + 7, _IDT)
    parts = [(4 * Vector.UD, struct.pack("<HH", HANDLER, 0)), (HANDLER, SKIP), (HANDLER_32, _SKIP_32)]
    parts += [(_GDT, struct.pack("<3Q", *_FLAT)), (_POINTERS, tables), (_IDT + 8 * Vector.UD, gate)]
    for number in range(1, cpus):
        parts += [(_place(number), other(number)), (_place(number, _COUNTED), bytes(4))]
    return multiboot(first, parts)


def calling(times, *, both=b"\xc3", first=b"\xc3", second=b"\xc3", alone=b"\xc3"):
    """Return an image whose CPUs call functions, each so often; CPU 1 then halts, and CPU 0 ends it with VALUE.

    Both call `both`; CPU 0 calls `first` of 32-bit code, CPU 1 `second` and `alone` of 16-bit code. They count down in
    ECX, and leave EBP alone.
    """
    other = Assembler(16)
    other.mov(AX, 0)
    other.mov(DS, AX)
    other.mov(SS, AX)
    other.mov(ESP, 0x7000)
    other.mov(ECX, times)
    other.mov(Mem(None, _HERE, size=32), 1)
    other.label("again")
    for function in (BOTH, SECOND, ALONE):
        other.mov(AX, function - OTHER)
        other.call(AX)
    other.dec(ECX)
    other.jne("again")
    other.mov(Mem(None, _THERE, size=32), 1)
    other.label("stay")
    other.hlt()
    other.jmp("stay")

    def code(code):
        code.mov(ESP, 0x6000)
        for register, value in ((ICR2, 1 << 24), (ICR, INIT), (ICR, STARTUP | OTHER >> 12)):
            code.mov(register, value)
        _await(code, _HERE)
        code.mov(ECX, times)
        code.label("again")
        for function in (BOTH, FIRST):
            code.mov(EAX, function)
            code.call(EAX)
        code.dec(ECX)
        code.jne("again")
        _await(code, _THERE)
        code.mov(EAX, Mem(None, VALUE))
        code.mov(EDX, 0xF4)
        code.out(DX, EAX)
        code.label("stay")
        code.jmp("stay")

    parts = [(OTHER, other.assemble(OTHER)), (VALUE, bytes(4)), (_HERE, bytes(8))]
    parts += [(BOTH, both), (FIRST, first), (SECOND, second), (ALONE, alone)]
    return multiboot(code, parts)


def _await(code, place):
    code.label(f"wait {place}")
    code.pause()
    code.cmp(Mem(None, place, size=32), 1)
    code.jne(f"wait {place}")


def _place(number, offset=0):
    return 0x8000 + _PAGE * number + offset
