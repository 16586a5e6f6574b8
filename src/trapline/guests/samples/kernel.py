"""Builds a sample guest: a multiboot 1 image that QEMU and a bare machine boot alike."""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from trapline.arch import msr
from trapline.arch.encode import pseudo_descriptor
from trapline.arch.paging import PAGE
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import VECTORS
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, DS, EAX, ECX, EDX, ES, SS, Mem

from . import places, tables
from .console import REGISTERS, Texts, routines
from .tables import Gate

_MAGIC: Final = 0x1BAD_B002
_HAS_ADDRESSES: Final = 1 << 16
_USER_PAGES: Final = (places.USER, places.VARIABLES, places.TEXT, places.TEXT + PAGE, places.USER_STACK - PAGE)


class Kernel:
    """A guest of 32-bit code without paging, or of 64-bit code: fill `code`, then ask for the `image`.

        kernel = Kernel(64)
        kernel.load_idt()
        kernel.say("UD2")
        kernel.raises(lambda code: code.ud2())
        kernel.finish()
        kernel.image()

    All exceptions have the handler of `console`; gates, stacks and pages can be changed before the image is built.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.code = Assembler(bits)
        self.user = Assembler(bits)
        """The program at CPL 3."""
        self.texts = Texts()
        self.registers = REGISTERS[bits]
        self.gates: dict[int, Gate | str] = {row.vector: f"vector{row.vector}" for row in VECTORS}
        """By vector: a row of the IDT, or the label of the handler."""
        self.open_gates: set[int] = set()
        """The vectors that CPL 3 may call by INT n."""
        self.interrupt_stacks: set[int] = set()
        """The vectors that are delivered on a stack of their own, IST 1."""
        self.idt_limit: int | None = None
        """None: all gates; else the limit that LIDT loads."""
        self.rsp0 = places.STACK
        self.unmapped = {places.GUARD}
        self._start()

    def say(self, text: str) -> None:
        """Emit code that prints a line."""
        self.code.mov(self.registers.si, self.texts(f"{text}\n"))
        self.code.call("print")

    def raises(self, emit: Callable[[Assembler], None], *, trap: bool = False, user: bool = False) -> None:
        """Emit an instruction that raises an exception, at CPL 3 if `user`, and check that it did.

        The handler steps over the instruction, unless it is a `trap`, which leaves RIP after it.
        """
        code = self.user if user else self.code
        alone = Assembler(self.bits)
        emit(alone)
        code.mov(Mem(None, places.SKIP, size=32), 0 if trap else len(alone.assemble(places.CODE)))
        code.mov(Mem(None, places.COUNT, size=32), 0)
        emit(code)
        code.cmp(Mem(None, places.COUNT, size=32), 1)
        code.jne("nothing raised")

    def load_idt(self) -> None:
        """Emit LIDT."""
        self.code.lidt(Mem(None, places.IDTR, size=32 if self.bits == 32 else None))

    def finish(self) -> None:
        """Emit the end, at the label `done`, of a guest that did what it was to do."""
        self.code.label("done")
        self.say("done")
        self.code.jmp("finish")

    def image(self) -> bytes:
        """Return the multiboot image."""
        labels = self.code.labels(places.CODE)
        idt = tables.idt(self.bits, {vector: self._gate(vector, gate, labels) for vector, gate in self.gates.items()})
        gdt = tables.gdt(self.bits)
        parts = {
            places.LOAD: _header(),
            places.ENTRY: self._enter(),
            places.CODE: self.code.assemble(places.CODE),
            places.USER: self.user.assemble(places.USER),
            places.TEXT: bytes(self.texts.content),
            places.TABLES: gdt,
            places.GDTR: pseudo_descriptor(places.TABLES, len(gdt) - 1, bits=self.bits),
            places.IDTR: pseudo_descriptor(
                places.IDT, len(idt) - 1 if self.idt_limit is None else self.idt_limit, bits=self.bits
            ),
            places.TSS: tables.tss(self.bits, self.rsp0, places.INTERRUPT_STACK),
            places.NAMES: tables.names(),
            places.IDT: idt,
            **(tables.page_tables(self.unmapped, _USER_PAGES) if self.bits == 64 else {}),
        }
        return _join(parts)

    def _gate(self, vector: int, gate: Gate | str, labels: Mapping[str, int]) -> Gate:
        if isinstance(gate, Gate):
            return gate
        dpl = 3 if vector in self.open_gates else 0
        return Gate(labels[gate], ist=int(vector in self.interrupt_stacks), dpl=dpl)

    def _enter(self) -> bytes:
        """The 32-bit code that the loader enters: to the code proper, in its mode."""
        code = Assembler(32)
        code.lgdt(Mem(None, places.GDTR, size=32))
        if self.bits == 64:
            code.mov(EAX, CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT)
            code.mov(operands.CR4, EAX)
            code.mov(EAX, places.PML4)
            code.mov(operands.CR3, EAX)
            code.mov(ECX, msr.EFER)
            code.mov(EAX, EFER.LME | EFER.SCE)
            code.mov(EDX, 0)
            code.wrmsr()
        code.mov(EAX, CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | CR0.AM | (CR0.PG if self.bits == 64 else 0))
        code.mov(operands.CR0, EAX)
        code.far_jump(places.CODE_SELECTOR, places.CODE)
        return code.assemble(places.ENTRY)

    def _start(self) -> None:
        """Emit the start of the code proper: data segments, stack, task register; then the routines."""
        code = self.code
        code.mov(EAX, places.DATA_SELECTOR)
        for segment in (DS, ES, SS):
            code.mov(segment, AX)
        code.mov(self.registers.sp, places.STACK)
        code.mov(EAX, places.TSS_SELECTOR)
        code.ltr(AX)
        code.jmp("main")
        routines(code, self.bits, self.texts)
        code.label("main")


def guest(description: str, fill: Callable[[Kernel], None], *, bits: int = 64, loads_idt: bool = True) -> bytes:
    """Return the image of a guest that prints what it is, does what `fill` emits, and ends."""
    kernel = Kernel(bits)
    if loads_idt:
        kernel.load_idt()
    kernel.say(description)
    fill(kernel)
    kernel.finish()
    return kernel.image()


def _header() -> bytes:
    fields = (places.LOAD, places.LOAD, places.LOAD_END, places.END, places.ENTRY)
    return struct.pack("<8I", _MAGIC, _HAS_ADDRESSES, -(_MAGIC + _HAS_ADDRESSES) & 0xFFFF_FFFF, *fields)


def _join(parts: dict[int, bytes]) -> bytes:
    """Put the parts at their places; none may reach into the next."""
    image = bytearray(places.LOAD_END - places.LOAD)
    end = places.LOAD
    for start, data in sorted(parts.items()):
        assert start >= end, f"the part before {start:#x} ends at {end:#x}"
        end = start + len(data)
        assert end <= places.LOAD_END, f"{end:#x} is beyond the image"
        image[start - places.LOAD : end - places.LOAD] = data
    return bytes(image)
