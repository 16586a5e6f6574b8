"""Builds a guest: a multiboot image of 32-bit code that enters a mode, has a handler for each exception, and ends."""

import random
import struct
from collections.abc import Callable, Mapping
from typing import Final

from trapline.arch import encode, msr
from trapline.arch.descriptors import (
    CODE_16,
    CODE_32,
    CODE_64,
    DATA_16,
    DATA_32,
    RING_3,
    TSS_SIZE,
    Attribute,
    GateType,
    SystemType,
)
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, BX, CX, DS, DX, EAX, EBX, ECX, EDX, ES, ESP, RAX, RBX, RCX, RDX, RSP, SS, Mem, Reg
from trapline.devices.power import DEBUG_EXIT

from . import places
from .handlers import END_CALL, handlers
from .paging import BASES, Window, page_tables

REAL, SHORT, FLAT, NARROW, PAE, LONG = MODES = (
    "real mode", "16-bit protected mode", "32-bit protected mode", "32-bit paging", "PAE paging", "long mode",
)  # fmt: skip
PROTECTED: Final = MODES[1:]
WIDE: Final = MODES[2:]
PAGED: Final = MODES[3:]
_MULTIBOOT: Final = 0x1BAD_B002
_HAS_ADDRESSES: Final = 1 << 16
_SIZES: Final = {REAL: 16, SHORT: 16, LONG: 64}


class Code:
    """Machine code at an address, from the assembler and as bytes."""

    def __init__(self, bits: int, address: int) -> None:
        self.bits, self.start, self.data = bits, address, b""

    @property
    def at(self) -> int:
        """The address of what follows."""
        return self.start + len(self.data)

    def emit(self, fill: Callable[[Assembler], None]) -> None:
        """Append instructions."""
        assembler = Assembler(self.bits)
        fill(assembler)
        self.data += assembler.assemble(self.at)

    def raw(self, data: bytes) -> None:
        """Append bytes."""
        self.data += data

    def mov(self, register: Reg, value: int) -> None:
        """Append a MOV of a constant to a register."""
        self.emit(lambda a: a.mov(register, value))

    def set(self, register: Reg, value: int) -> None:
        """Append code that sets a control register; EAX or RAX is lost."""
        wide = RAX if self.bits == 64 else EAX
        self.mov(wide, value)
        self.emit(lambda a: a.mov(register, wide))


class Kernel:
    """A guest in one mode. A fault changes its tables and adds to `code`, or to `user` if it is a program at CPL 3."""

    def __init__(self, mode: str, rng: random.Random, *, style: str, user: bool, broken: bool) -> None:
        self.mode, self.rng, self.style, self.is_user, self.broken = mode, rng, style, user, broken
        self.bits = _SIZES.get(mode, 32)
        self.long, self.real = mode == LONG, mode == REAL
        self.base = rng.choice(BASES[mode]) if mode in BASES else 0
        """What is added to a gpa for the linear address that the kernel uses."""
        self.origin = places.LOAD if self.bits == 16 else 0
        """The base of the segments."""
        self.code, self.user = Code(self.bits, self.offset(places.CODE)), Code(self.bits, self.offset(places.USER))
        self.ax, self.bx, self.cx, self.dx = {
            16: (AX, BX, CX, DX), 32: (EAX, EBX, ECX, EDX), 64: (RAX, RBX, RCX, RDX),
        }[self.bits]  # fmt: skip
        self.sp = RSP if self.long else ESP
        self.memory = bytearray(places.END - places.LOAD)
        self.put(places.TARGET, b"\xc3" * 0x1000)
        self.gdt = self._gdt()
        self.idt_limit: int | None = None
        self.tss_limit = TSS_SIZE - 1
        self.stacks, self.interrupt_stacks = [self.linear(places.STACK)], [self.linear(places.FAULT_STACK)]
        self.windows: list[Window] = []
        self.user_pages = {places.USER, places.DATA, places.USER_STACK - 0x1000}
        self.cr0 = CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | (CR0.PG if mode in PAGED else 0)
        self.cr4 = CR4.OSFXSR | CR4.OSXMMEXCPT | (CR4.PAE if mode in (PAE, LONG) else 0)
        self.efer = EFER.NXE | (EFER.LME | EFER.SCE if self.long else 0)
        self.gates = self._gates()

    def linear(self, gpa: int) -> int:
        """Return the linear address that the kernel uses for its own memory."""
        return gpa + self.base

    def offset(self, gpa: int) -> int:
        """Return the offset in the kernel's segments."""
        return self.linear(gpa) - self.origin

    @property
    def faults(self) -> Code:
        """The code that is to raise the exception."""
        return self.user if self.is_user else self.code

    def put(self, gpa: int, data: bytes) -> None:
        """Store bytes in the image."""
        at = gpa - places.LOAD
        assert 0 <= at <= len(self.memory) - len(data), f"{gpa:#x}"
        self.memory[at : at + len(data)] = data

    def gate(self, offset: int, *, dpl: int = 0, ist: int = 0) -> int:
        """Return a gate of the mode."""
        if self.real:
            return encode.far_pointer(places.LOAD >> 4, offset)
        kind = GateType.INTERRUPT_16 if self.bits == 16 else GateType.INTERRUPT_32
        make = encode.long_gate if self.long else encode.gate
        return make(places.CODE_0, offset, kind, dpl=dpl, ist=ist)

    def image(self) -> bytes:
        """Return the multiboot image."""
        self._finish()
        size = {REAL: 4, LONG: 16}.get(self.mode, 8)
        limit = 256 * size - 1 if self.idt_limit is None else self.idt_limit
        for vector, gate in self.gates.items():
            self.put(places.IDT + vector * size, gate.to_bytes(size, "little"))
        self.gdt[places.TASK] = encode.descriptor(
            self.linear(places.TSS) & 0xFFFF_FFFF, self.tss_limit, Attribute.P | SystemType.TSS_32
        )
        self.gdt[places.TASK + 8] = self.linear(places.TSS) >> 32
        for selector, value in self.gdt.items():
            self.put(places.GDT + selector, value.to_bytes(8, "little"))
        stacks = [(places.DATA_0, stack) for stack in self.stacks] if not self.long else []
        tss = encode.long_tss(self.stacks, self.interrupt_stacks) if self.long else encode.tss(9, stacks)
        self.put(places.TSS, tss)
        bits = 64 if self.long else 32
        self.put(places.GDTR, encode.pseudo_descriptor(self.linear(places.GDT), places.GDT_LIMIT, bits=bits))
        self.put(places.EARLY_GDTR, encode.pseudo_descriptor(places.GDT, places.GDT_LIMIT, bits=32))
        self.put(places.IDTR, encode.pseudo_descriptor(self.linear(places.IDT), limit, bits=bits))
        for code in (self.code, self.user):
            self.put(code.start - self.base + self.origin, code.data)
        if self.mode in PAGED:
            for gpa, data in page_tables(self).items():
                self.put(gpa, data)
        header = (_MULTIBOOT, _HAS_ADDRESSES, -(_MULTIBOOT + _HAS_ADDRESSES) & 0xFFFF_FFFF)
        self.put(places.LOAD, struct.pack("<8I", *header, *[places.LOAD] * 2, places.END, places.END, places.LOAD + 32))
        self.put(places.LOAD + 32, self._enter())
        return bytes(self.memory)

    def start(self) -> None:
        """Emit the start of the code: segments, stack, TSS, IDT."""
        code, selector = self.code, places.LOAD >> 4 if self.real else places.DATA_0

        def fill(a: Assembler) -> None:
            a.mov(AX, selector)
            for segment in (DS, ES, SS):
                a.mov(segment, AX)
            a.mov(self.sp, self.offset(places.STACK))
            if self.long:
                a.mov(RAX, self.linear(places.GDTR))
                a.lgdt(Mem(RAX))
                a.mov(RAX, self.linear(places.IDTR))
                a.lidt(Mem(RAX))
            else:
                a.mov(self.bx, self.offset(places.IDTR))
                a.lidt(Mem(self.bx))
            if self.mode in WIDE:
                a.mov(EAX, places.TASK)
                a.ltr(AX)

        code.emit(fill)
        if self.is_user and not self.long:  # an interrupt return to CPL 3 clears segments of DPL 0
            self.user.mov(AX, places.DATA_3 | 3)
            self.user.emit(lambda a: a.mov(DS, AX))
            self.user.emit(lambda a: a.mov(ES, AX))

    def enter_user(self) -> None:
        """Emit an interrupt return to CPL 3."""
        frame = (places.DATA_3 | 3, self.offset(places.USER_STACK), 2, places.CODE_3 | 3, self.user.start)

        def fill(a: Assembler) -> None:
            for value in frame:
                a.mov(self.ax, value)
                a.push(self.ax)
            (a.iretq if self.long else a.iretd)()

        self.code.emit(fill)

    def _finish(self) -> None:
        """Emit the end of a guest that did all."""

        def fill(a: Assembler) -> None:
            a.mov(operands.AL, 0)
            a.out(DEBUG_EXIT, operands.AL)
            a.label("forever")
            a.cli()
            a.hlt()
            a.jmp("forever")

        if self.is_user:
            self.user.emit(lambda a: a.int(END_CALL))
            self.enter_user()
        self.code.emit(fill)

    def _enter(self) -> bytes:
        """The code that the loader enters."""
        a = Assembler(32)
        a.lgdt(Mem(None, places.EARLY_GDTR if self.long else places.GDTR, size=32))
        a.cli()
        for register, value in ((operands.CR4, self.cr4), (operands.CR3, places.ROOT)):
            a.mov(EAX, value)
            a.mov(register, EAX)
        if self.efer:
            a.mov(ECX, msr.EFER)
            a.mov(EAX, self.efer)
            a.mov(EDX, 0)
            a.wrmsr()
        start = places.LOAD + 0x200
        if self.real:
            a.far_jump(places.REAL_CODE, start - places.LOAD)
        else:
            a.mov(EAX, self.cr0)
            a.mov(operands.CR0, EAX)
            a.far_jump(places.CODE_0, start if self.bits != 16 else self.code.start)
        self.put(start, self._far())
        return a.assemble(places.LOAD + 32)

    def _far(self) -> bytes:
        """The code that jumps to the kernel's own addresses, in its mode."""
        a = Assembler(self.bits)
        if self.real:
            a.mov(AX, places.REAL_DATA)
            for segment in (DS, ES, SS):
                a.mov(segment, AX)
            a.mov(EAX, operands.CR0)
            a.and_(EAX, ~CR0.PE & 0x7FFF_FFFF)
            a.mov(operands.CR0, EAX)
            a.far_jump(places.LOAD >> 4, self.code.start)
        elif self.bits > 16:
            a.mov(self.ax, self.code.start)
            a.jmp(self.ax)
        return a.assemble(0x200 if self.bits == 16 else places.LOAD + 0x200)

    def _gdt(self) -> dict[int, int]:
        code, data = {16: (CODE_16, DATA_16), 32: (CODE_32, DATA_32), 64: (CODE_64, DATA_32)}[self.bits]

        def segment(kind: int) -> int:
            limit = 0xFFFF_FFFF if kind & Attribute.G else 0xFFFF
            return encode.descriptor(self.origin, limit, kind)

        return {
            places.CODE_0: segment(code),
            places.DATA_0: segment(data),
            places.CODE_3: segment(code | RING_3),
            places.DATA_3: segment(data | RING_3),
            places.ABSENT: segment(data & ~Attribute.P),
            places.CODE_ONLY: segment(code & ~Attribute.WRITABLE),
            places.SYSTEM: encode.descriptor(0, 0xFFFF, Attribute.P | SystemType.LDT),
            places.REAL_CODE: encode.descriptor(places.LOAD, 0xFFFF, CODE_16),
            places.REAL_DATA: encode.descriptor(places.LOAD, 0xFFFF, DATA_16),
        }

    def _gates(self) -> dict[int, int]:
        code, labels = handlers(
            self.bits, self.offset(places.HANDLERS), self.style, self.offset(places.DATA), real=self.real
        )
        self.put(places.HANDLERS, code)
        return {vector: self._own_gate(vector, labels) for vector in labels}

    def _own_gate(self, vector: int, labels: Mapping[int, int]) -> int:
        ist = int(self.long and vector == Vector.DF)
        return self.gate(labels[vector], ist=ist, dpl=3 * (vector in (3, END_CALL)))
