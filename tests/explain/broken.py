"""Guests that are each broken in one classic way, and what their explanations must say."""

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from trapline.arch import msr
from trapline.arch.paging import NX, RW, P
from trapline.arch.registers import CR0, EFER
from trapline.arch.vectors import VECTORS, Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, DS, EAX, ECX, EDX, ESP, RAX, RBX, RSP, SS, XMM0, Mem
from trapline.guests.samples import places, tables
from trapline.guests.samples.kernel import Kernel
from trapline.guests.samples.programs import enter_user
from trapline.guests.samples.tables import Gate

GDT = places.TABLES
SPARE = places.SHORT_TSS_SELECTOR
"""An unused descriptor."""
NEW_GDT = places.LAZY_PAGES + 0x800
NEW_GDTR = places.LAZY_PAGES + 0xF00
CODE_64, CODE_32, DATA = 0x00AF_9B00_0000_FFFF, 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF
NULL_CS = b"\0\0\0\0"


class Broken(NamedTuple):
    """A guest, and the pattern that the sentence about it has."""

    name: str
    image: Callable[[], bytes]
    expected: str
    place: str = "cause"
    """`cause` or `reason`: of the failed delivery, or of the exception itself."""
    symbols: str = ""
    """A System.map of it."""
    cpu: str | None = None
    """The CPU model that QEMU needs."""

    def found_in(self, explanation):
        """Say whether the explanation names what was planted."""
        text = " ".join(explanation.causes) if self.place == "cause" else explanation.origin.reason or ""
        return re.search(self.expected, text) is not None


def patched(image, *changes):
    """Return an image with bytes stored at addresses."""
    image = bytearray(image)
    for gpa, data in changes:
        at = gpa - places.LOAD
        image[at : at + len(data)] = data
    return bytes(image)


def qword(value):
    return value.to_bytes(8, "little")


def undefined(kernel):
    kernel.code.ud2()


def user_undefined(kernel):
    kernel.user.ud2()
    if kernel.bits == 64:
        enter_user(kernel)
    else:
        enter_user_32(kernel)


def enter_user_32(kernel):
    for value in (places.USER_DATA_SELECTOR, places.USER_STACK, 2, 0x18 | 3, places.USER):
        kernel.code.mov(EAX, value)
        kernel.code.push(EAX)
    kernel.code.iretd()


def all_gates(gate):
    return {row.vector: gate for row in VECTORS}


def kernel(bits=64, *, raises=undefined, loads_idt=True, prepare=None, patches=(), **attributes):
    """Return a function that builds the image of a kernel that is changed and then raises an exception."""

    def build():
        made = Kernel(bits)
        for name, value in attributes.items():
            setattr(made, name, value)
        if loads_idt:
            made.load_idt()
        if prepare is not None:
            prepare(made)
        raises(made)
        made.finish()
        return patched(made.image(), *patches)

    return build


def early(emit, prepare=None, **attributes):
    """Return a kernel without an IDT, in which an instruction raises an exception."""
    return kernel(raises=lambda made: emit(made.code), prepare=prepare, loads_idt=False, **attributes)


def loads_gdt(made):
    made.code.lgdt(Mem(None, NEW_GDTR, size=None if made.bits == 64 else 32))


def real_idtr(made):
    made.code.lidt(Mem(None, NEW_GDTR, size=None if made.bits == 64 else 32))


def enables_nx(made):
    code = made.code
    code.mov(ECX, msr.EFER)
    code.rdmsr()
    code.or_(EAX, EFER.NXE)
    code.wrmsr()


def without_sse(made):
    made.code.mov(RAX, operands.CR4)
    made.code.and_(EAX, ~(1 << 9) & 0x7FFF_FFFF)
    made.code.mov(operands.CR4, RAX)


def task_switched(made):
    made.code.mov(RAX, operands.CR0)
    made.code.or_(EAX, CR0.TS)
    made.code.mov(operands.CR0, RAX)


def unmapped_irq(made):
    """Start the timer, and the interrupt controller as a BIOS leaves it: IRQ 0 is vector 8."""
    code = made.code
    writes = ((0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0xFE), (0x43, 0x36), (0x40, 0), (0x40, 4))
    for port, value in writes:
        code.mov(AL, value)
        code.out(port, AL)
    code.sti()
    code.label("idle")
    code.jmp("idle")


def recursion(made):
    made.code.label("recurse")
    made.code.call("recurse")


def own_exception(made):
    made.gates = all_gates("again")
    made.code.label("again")
    made.code.ud2()


def without_stack(address):
    def raises(made):
        made.code.mov(RSP if made.bits == 64 else ESP, address)
        made.code.ud2()

    return raises


def returns_to(rip, cs, flags=2, rsp=places.STACK, ss=places.DATA_SELECTOR):
    def emit(code):
        for value in (ss, rsp, flags, cs, rip):
            code.mov(RAX, value)
            code.push(RAX)
        code.iretq()

    return emit


def without_ltr(build):
    """Take the LTR out of an image."""

    def change():
        image = build()
        assert image.count(b"\x0f\x00\xd8") == 1
        return image.replace(b"\x0f\x00\xd8", b"\x90\x90\x90")

    return change


def with_legacy_idt(build):
    def change():
        gates = all_gates(Gate(places.CODE))
        return patched(build(), (places.IDT, bytes(0x200)), (places.IDT, tables.idt(32, gates)))

    return change


def gate_types(kind, size=16):
    """The bytes that make all gates of a type."""
    return [(places.IDT + size * row.vector + 5, bytes((0x80 | kind,))) for row in VECTORS]


def page(gpa, entry):
    return (places.PAGES + gpa // 0x1000 * 8, qword(entry))


def real_code(emit):
    """Return a boot sector of 16-bit code, entered by a BIOS at 0:7C00."""

    def build():
        code = Assembler(16)
        emit(code)
        return code.assemble(0x7C00).ljust(510, b"\0") + b"\x55\xaa"

    return build


def real_lidt(base, limit, emit):
    """16-bit code that stores an IDTR at 0:7E00, loads it and goes on."""

    def build(code):
        code.mov(AX, 0)
        code.mov(DS, AX)
        code.mov(SS, AX)
        code.mov(operands.ESP, 0x7000)
        for at, value in ((0x7E00, limit), (0x7E02, base & 0xFFFF), (0x7E04, base >> 16)):
            code.mov(AX, value)
            code.mov(Mem(None, at, size=16), AX)
        code.lidt(Mem(None, 0x7E00))
        emit(code)

    return real_code(build)


def odd_stack(code):
    code.mov(operands.ESP, 1)
    code.ud2()


NO_IDT = "no IDT is loaded"
UPPER_HALF = (
    (places.PML4 + 511 * 8, qword(places.PDPT | P | RW)),
    (places.PDPT + 510 * 8, qword(places.DIRECTORY | 3)),
)
DESCRIPTOR = GDT + SPARE

LONG = (
    Broken("no IDT", kernel(loads_idt=False), NO_IDT),
    Broken(
        "short IDT",
        kernel(raises=lambda k: (k.code.mov(RAX, places.NON_CANONICAL), k.code.mov(EAX, Mem(RAX))), idt_limit=0x7F),
        r"IDTR.limit is 0x7f: the IDT has 8 entries, and #GP is entry 13",
    ),
    Broken("gates not present", kernel(gates=all_gates(Gate(places.CODE, present=False))), "entry 6 .* is not present"),
    Broken("empty gates", kernel(gates={Vector.XM: Gate(places.CODE)}), r"entry 6 .* is empty \(all zero\)"),
    Broken("task gates", kernel(patches=gate_types(5)), "entry 6 .* is a task gate in long mode"),
    Broken("16-bit gates", kernel(patches=gate_types(6)), "entry 6 .* is a 16-bit interrupt gate in long mode"),
    Broken("call gates", kernel(patches=gate_types(12)), "entry 6 .* is a call gate"),
    Broken("8-byte gates", with_legacy_idt(kernel()), "8-byte gates of protected mode, but in long mode"),
    Broken(
        "selector beyond the GDT",
        kernel(gates=all_gates(Gate(places.CODE, selector=places.NO_SELECTOR))),
        "0x1000 in IDT entry 6 .* is beyond the end of the GDT",
    ),
    Broken(
        "null selector",
        kernel(gates=all_gates(Gate(places.CODE, selector=0))),
        "selector 0x0 in IDT entry 6 .* is null",
    ),
    Broken(
        "data selector",
        kernel(gates=all_gates(Gate(places.CODE, selector=places.DATA_SELECTOR))),
        "selector 0x10 in IDT entry 6 .* is a data segment",
    ),
    Broken(
        "user code",
        kernel(gates=all_gates(Gate(places.CODE, selector=places.USER_CODE_SELECTOR & ~3))),
        "selector 0x28 .* code of DPL 3, but a handler's DPL must not be above the CPL, 0",
    ),
    Broken(
        "32-bit code",
        kernel(gates=all_gates(Gate(places.CODE, selector=SPARE)), patches=[(DESCRIPTOR, qword(CODE_32))]),
        "selector 0x48 .* is 32-bit code of DPL 0, but in long mode a handler must be 64-bit code",
    ),
    Broken(
        "code not present",
        kernel(gates=all_gates(Gate(places.CODE, selector=SPARE)), patches=[(DESCRIPTOR, qword(CODE_64 & ~(1 << 47)))]),
        "selector 0x48 .* that is not present",
    ),
    Broken(
        "handler not canonical",
        kernel(gates=all_gates(Gate(places.NON_CANONICAL))),
        "(which|0x800000000000) is not a canonical address",
    ),
    Broken(
        "handler not mapped",
        kernel(gates=all_gates(Gate(places.UNMAPPED))),
        "the handler of #PF cannot be fetched: 0x80000000 is not mapped: PDPE is 0x0",
    ),
    Broken(
        "handler not in kernel space",
        kernel(gates=all_gates(Gate(places.CODE + (1 << 31))), patches=UPPER_HALF),
        "lacks the upper 32 bits of 0xffffffff80101000",
    ),
    Broken(
        "handler NX",
        kernel(
            gates=all_gates(Gate(places.TEXT)),
            prepare=enables_nx,
            patches=[page(places.TEXT, places.TEXT | P | RW | NX)],
        ),
        "the handler of #PF cannot be fetched: 0x106000 is not executable: PTE NX=1",
    ),
    Broken("handler raises itself", kernel(raises=own_exception), "the handler of #UD raises #UD itself"),
    Broken("TSS never loaded", without_ltr(kernel(raises=user_undefined)), "no TSS is loaded: TR is null"),
    Broken(
        "short TSS",
        kernel(raises=user_undefined, patches=[(GDT + places.TSS_SELECTOR, b"\x03\0")]),
        "the TSS limit is 0x3, and RSP0 is at offset 0x4",
    ),
    Broken(
        "IST zero",
        kernel(gates={row.vector: Gate(places.CODE, ist=2) for row in VECTORS}),
        "IST2 in the TSS is zero",
    ),
    Broken("RSP0 zero", kernel(raises=user_undefined, rsp0=0), "RSP0 in the TSS is zero"),
    Broken(
        "RSP0 not mapped",
        kernel(raises=user_undefined, rsp0=places.UNMAPPED),
        "RSP0 in the TSS is 0x80000000, but a push there fails: .* not mapped",
    ),
    Broken(
        "RSP0 not canonical",
        kernel(raises=user_undefined, rsp0=places.NON_CANONICAL),
        "RSP0 .* not a canonical address",
    ),
    Broken(
        "stack overflow",
        kernel(raises=recursion),
        "the kernel stack overflowed: RSP is 0x111000, the page at 0x110000 is not mapped",
    ),
    Broken("RSP zero", kernel(raises=without_stack(0)), "RSP is 0x0, which does not point to a stack"),
    Broken(
        "RSP not mapped",
        kernel(raises=without_stack(places.UNMAPPED)),
        "RSP is 0x80000000, which does not point to a stack: 0x7ffffff8 is not mapped",
    ),
    Broken(
        "RSP not canonical", kernel(raises=without_stack(places.NON_CANONICAL + 0x100)), "RSP is .* not a canonical"
    ),
    Broken(
        "stack read-only",
        kernel(patches=[page(places.STACK - 0x1000, (places.STACK - 0x1000) | P)], raises=without_stack(places.STACK)),
        "not writable: PTE R/W=0",
    ),
    Broken(
        "reserved bits",
        kernel(patches=[page(places.IDT, places.IDT | P | RW | 1 << 51)]),
        "mapped with reserved bits: PTE .* has 0x8000000000000 set",
    ),
    Broken(
        "IDT without memory",
        kernel(patches=[page(places.IDT, 0x40_0000_0000 | P | RW)]),
        "the IDT is at 0x109000, but its page is mapped to 0x4000000000, where there is no memory",
    ),
    Broken("IDT not mapped", kernel(unmapped={places.IDT}), "the IDT is at 0x109000, which is not mapped"),
    Broken(
        "GDT not mapped",
        kernel(prepare=loads_gdt, patches=[(NEW_GDTR, struct.pack("<HQ", 0x4F, places.UNMAPPED))]),
        "the delivery needs the descriptor at 0x80000008, which is not mapped",
    ),
    Broken(
        "vector table of real mode",
        kernel(prepare=real_idtr, patches=[(NEW_GDTR, struct.pack("<HQ", 0x3FF, 0))]),
        "no IDT is loaded for protected mode: IDTR .* is still that of real mode",
    ),
    Broken(
        "CS of another GDT",
        kernel(
            prepare=loads_gdt,
            patches=[(NEW_GDTR, struct.pack("<HQ", 23, NEW_GDT)), (NEW_GDT, struct.pack("<3Q", 0, DATA, CODE_64))],
        ),
        "the GDT has changed since CS was loaded: 0x8, the selector in IDT entry 6 .*, is now a data segment",
    ),
)

RAISED = (
    Broken(
        "SSE disabled",
        early(lambda code: code.movaps(XMM0, Mem(RSP)), prepare=without_sse),
        "movaps is an SSE instruction, and CR4.OSFXSR is clear",
        "reason",
    ),
    Broken(
        "task switched",
        early(lambda code: code.movaps(XMM0, Mem(RSP)), prepare=task_switched),
        "movaps uses FPU or SSE state, and CR0.TS is set",
        "reason",
    ),
    Broken(
        "misaligned",
        early(lambda code: code.movaps(XMM0, Mem(RSP, -8))),
        "movaps needs an address aligned to 16 bytes, and 0x111ff8 is not",
        "reason",
    ),
    Broken(
        "not canonical",
        early(lambda code: (code.mov(RBX, places.NON_CANONICAL), code.mov(EAX, Mem(RBX, 16)))),
        "mov accesses 0x800000000010, which is not a canonical address",
        "reason",
    ),
    Broken(
        "null pointer",
        early(lambda code: (code.mov(RBX, 0), code.mov(EAX, Mem(RBX, 8))), unmapped={0}),
        r"read of 0x8, a null pointer \(not mapped",
        "reason",
    ),
    Broken(
        "read-only page",
        early(
            lambda code: (code.mov(RBX, places.TEXT), code.mov(Mem(RBX), EAX)),
            patches=[page(places.TEXT, places.TEXT | P)],
        ),
        r"write to 0x106000 \(not writable: PTE R/W=0\)",
        "reason",
    ),
    Broken(
        "reserved bit",
        early(
            lambda code: (code.mov(RBX, places.TEXT), code.mov(EAX, Mem(RBX))),
            patches=[page(places.TEXT, places.TEXT | P | 1 << 51)],
        ),
        r"read of 0x106000 \(mapped with reserved bits: PTE .* has 0x8000000000000 set",
        "reason",
    ),
    Broken("IRET to a null CS", early(returns_to(places.CODE, 0)), "iretq pops CS 0x0, which is null", "reason"),
    Broken(
        "IRET to data",
        early(returns_to(places.CODE, places.DATA_SELECTOR)),
        "iretq pops CS 0x10, which is a data segment",
        "reason",
    ),
    Broken(
        "IRET to a bad RIP",
        early(returns_to(places.NON_CANONICAL, places.CODE_SELECTOR)),
        "(iretq pops RIP|execution went to) 0x800000000000, which is not a canonical",
        "reason",
    ),
    Broken(
        "IRET with a bad SS",
        early(returns_to(places.USER, places.USER_CODE_SELECTOR, ss=places.DATA_SELECTOR)),
        "iretq pops SS 0x10, which is a data segment of DPL 0, but the new CPL is 3",
        "reason",
    ),
    Broken(
        "segment beyond the GDT",
        early(lambda code: (code.mov(EAX, 0x1000), code.mov(DS, AX))),
        "mov uses the selector 0x1000, which is beyond the end of the GDT",
        "reason",
    ),
    Broken(
        "segment not present",
        early(lambda code: (code.mov(EAX, places.ABSENT_SELECTOR), code.mov(DS, AX))),
        "mov uses the selector 0x40, which is a data segment of DPL 0 that is not present",
        "reason",
    ),
    Broken(
        "MSR that is none",
        early(lambda code: (code.mov(ECX, 0x1234_5678), code.rdmsr())),
        "the CPU rejects rdmsr of MSR 0x12345678",
        "reason",
    ),
    Broken(
        "IRQ 0 as vector 8",
        kernel(raises=unmapped_irq, loads_idt=False),
        "^interrupt 0x08 at .*IRQ 0 arrived at an exception vector: the interrupt controller was not remapped",
    ),
    Broken(
        "IRQ 0 beyond the IDT",
        kernel(raises=unmapped_irq, gates={Vector.UD: Gate(places.CODE)}),
        "^interrupt 0x08 at .*IRQ 0 arrived at an exception vector.* IDTR.limit is 0x6f",
    ),
    Broken(
        "division by zero",
        early(lambda code: (code.mov(EDX, 0), code.mov(ECX, 0), code.div(ECX))),
        "div by zero",
        "reason",
    ),
)

_TSS_32 = places.TSS
PROTECTED = (
    Broken("no IDT, 32 bits", kernel(32, loads_idt=False), NO_IDT),
    Broken("short IDT, 32 bits", kernel(32, idt_limit=0x1F), "IDTR.limit is 0x1f: the IDT has 4 entries, and #UD"),
    Broken(
        "gates not present, 32 bits",
        kernel(32, gates=all_gates(Gate(places.CODE, present=False))),
        "entry 6 .* is not present",
    ),
    Broken(
        "data selector, 32 bits",
        kernel(32, gates=all_gates(Gate(places.CODE, selector=places.DATA_SELECTOR))),
        "selector 0x10 .* is a data segment",
    ),
    Broken(
        "vector table of real mode, 32 bits",
        kernel(32, prepare=real_idtr, patches=[(NEW_GDTR, struct.pack("<HQ", 0x3FF, 0))]),
        "is still that of real mode",
    ),
    Broken(
        "CS of another GDT, 32 bits",
        kernel(
            32,
            prepare=loads_gdt,
            patches=[(NEW_GDTR, struct.pack("<HQ", 23, NEW_GDT)), (NEW_GDT, struct.pack("<3Q", 0, DATA, CODE_32))],
        ),
        "the GDT has changed since CS was loaded: 0x8",
    ),
    Broken(
        "SS0 null",
        kernel(32, raises=user_undefined, patches=[(_TSS_32 + 8, NULL_CS)]),
        "SS0 in the TSS is 0x0, which is null; the stack for CPL 0 must be writable data of DPL 0",
    ),
    Broken(
        "SS0 code",
        kernel(32, raises=user_undefined, patches=[(_TSS_32 + 8, b"\x08\0\0\0")]),
        "SS0 in the TSS is 0x8, which is 32-bit code",
    ),
    Broken(
        "SS0 of ring 3",
        kernel(32, raises=user_undefined, patches=[(_TSS_32 + 8, b"\x20\0\0\0")]),
        "SS0 in the TSS is 0x20, which is a data segment of DPL 3",
    ),
    Broken("TSS never loaded, 32 bits", without_ltr(kernel(32, raises=user_undefined)), "no TSS is loaded: TR is null"),
)

REAL = (
    Broken("empty vector table", real_lidt(0, 0, lambda code: code.ud2()), "IDTR.limit is 0x0: the IDT has no entries"),
    Broken(
        "short vector table",
        real_lidt(0, 0x13, lambda code: code.ud2()),
        "IDTR.limit is 0x13: the IDT has 5 entries, and #UD is entry 6",
    ),
    Broken(
        "odd stack",
        real_lidt(0, 0x3FF, odd_stack),
        "the stack pointer is 0x1, and the SS limit is 0xffff: the pushes do not fit",
    ),
)

ALL = (*LONG, *RAISED, *PROTECTED, *REAL)

NOT_ON_QEMU = {
    "MSR that is none": "it reads any MSR",
    "TSS never loaded, 32 bits": "it ends by itself with `invalid tss`",
    "odd stack": "it does not check the limit of the stack in real mode",
}
