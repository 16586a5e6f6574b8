"""Guests for the rules about what raised an exception: a whole machine for each, beside the states of `test_rules`."""

import struct

from tests.explain.broken import (
    CODE_32,
    GDT,
    NEW_GDTR,
    SPARE,
    Broken,
    early,
    enables_nx,
    kernel,
    page,
    qword,
    recursion,
    undefined,
)  # fmt: skip
from tests.explain.kinds import RAW, WIDE_CODE, raw, sets
from trapline.arch.paging import NX, RW, P
from trapline.arch.registers import CR4
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.operands import EAX, RAX, RSP, Mem
from trapline.guests.samples import places
from trapline.guests.samples.programs import enter_user
from trapline.guests.samples.tables import Gate

NAMED = f"{places.CODE:016x} T main\n{places.CODE + 0xF00:016x} T last\n{places.CODE + 0x1000:016x} D data\n"
"""The code has names, and nothing else has."""


def stack_at(address):
    return lambda made: (made.code.mov(RSP, address), undefined(made))


def lidt_of(address):
    """Return code that loads an IDT of 32 gates at an address."""

    def prepare(made):
        made.code.lidt(Mem(None, NEW_GDTR))

    return {"prepare": prepare, "patches": [(NEW_GDTR, struct.pack("<HQ", 0x1FF, address))], "loads_idt": False}


def again_in_its_handler(made):
    """A handler on IST 1 raises the same exception, whose gate is not present by then."""
    made.gates = {Vector.UD: "again"}
    made.interrupt_stacks = {Vector.UD}
    made.code.ud2()
    made.code.label("again")
    made.code.mov(Mem(None, places.IDT + 16 * Vector.UD + 5, size=8), 0x0E)
    made.code.ud2()


def reads_below_the_stack(code):
    code.mov(RAX, places.UNMAPPED)
    code.mov(Mem(RSP, -8), RAX)
    code.mov(RAX, Mem(RSP, -8))
    code.mov(EAX, Mem(RAX))


def calls(address, before=None):
    def emit(code):
        code.mov(RAX, 0)
        code.mov(operands.RBX, address)
        code.call(operands.RBX)

    return emit


def reads_of_user(made):
    sets(operands.CR4, CR4.SMAP)(made)
    made.user.nop()
    made.code.mov(EAX, Mem(None, places.USER))


def in_user(emit):
    """Return code that raises an exception at CPL 3."""

    def raises(made):
        emit(made.user)
        enter_user(made)

    return raises


FAR_RETURN = b"\x6a\x48\x68" + (RAW + 9).to_bytes(4, "little") + b"\x48\xcb"
"""push SPARE; push what follows; retfq."""
XCR0_OF_SSE = b"\x31\xc9\x31\xd2\xb8\x03\0\0\0\x0f\x01\xd1"
"""xor ecx, ecx; xor edx, edx; mov eax, 3; xsetbv."""
VXORPS = b"\xc5\xf0\x57\xc9"
ELSEWHERE = places.FRAMES

INSTRUCTIONS = (
    Broken("AVX", raw(VXORPS), r"AVX, which the guest's CPU lacks \(CPUID function 0x1, ECX bit 28\)", "reason"),
    Broken(
        "a bit of CR4 that the CPU lacks",
        kernel(raises=sets(operands.CR4, CR4.PKE), loads_idt=False),
        r"the guest's CPU lacks PKE \(CPUID function 0x7, ECX bit 3\)",
        "reason",
    ),
    Broken("a null selector", raw(b"\xea\0\0\0\0\0\0", 32), "jmp far loads CS with 0x0, which is null", "reason"),
    Broken("FSGSBASE", raw(b"\xf3\x48\x0f\xae\xd8"), "wrgsbase .*FSGSBASE", "reason"),
    Broken(
        "IRETW",
        raw(b"\x66\xcf", prepare=lambda made: made.code.mov(RSP, places.STACK - 0x100)),
        "iretw? pops",
        "reason",
    ),
    Broken(
        "a gate of DPL 0",
        kernel(raises=in_user(lambda user: user.int(0x1F)), gates={0x1F: Gate(places.CODE)}),
        r"at CPL 3 may not call IDT entry 31 .*: the gate's DPL is 0",
    ),
)

MEMORY = (
    Broken(
        "IDT in the page tables",
        kernel(**lidt_of(places.DIRECTORY)),
        "the IDT, at 0x10c000, is inside the page tables: 0x10c000",
        "reason",
    ),
    Broken(
        "stack in the GDT",
        kernel(raises=stack_at(GDT + 0x20), loads_idt=False),
        "the stack, at 0x108020, is inside the GDT, which begins at 0x108000",
        "reason",
    ),
    Broken(
        "stack in the TSS",
        kernel(raises=stack_at(places.TSS + 0x40), loads_idt=False),
        "the stack, at 0x108240, is inside the TSS, which begins at 0x108200",
        "reason",
    ),
    Broken(
        "stack in the code",
        kernel(raises=stack_at(places.CODE + 0xF80), loads_idt=False),
        "the stack, at 0x101f80, is inside the code of last",
        "reason",
        NAMED,
    ),
    Broken(
        "stack overflow without an IDT",
        kernel(raises=recursion, loads_idt=False),
        "the stack overflowed: the stack pointer is 0x111000",
        "reason",
    ),
    Broken(
        "IST stack in use",
        kernel(raises=again_in_its_handler),
        "IST1, 0x115000, is the top of the stack in use",
        "reason",
    ),
    Broken(
        "red zone",
        early(reads_below_the_stack),
        r"the code uses the red zone \(\[rsp-0x8\] at 0x10",
        "reason",
    ),
    Broken("SMAP", kernel(raises=reads_of_user, loads_idt=False), "read of 0x104000 .*SMAP", "reason", cpu="max"),
    Broken(
        "a page of the supervisor",
        kernel(raises=in_user(lambda user: user.mov(EAX, Mem(None, places.IDT))), loads_idt=False),
        r"read of 0x109000 \(a supervisor page: PTE U/S=0\)",
        "reason",
    ),
    Broken(
        "NX",
        early(
            lambda code: (code.mov(RAX, places.TEXT), code.jmp(RAX)),
            prepare=enables_nx,
            patches=[page(places.TEXT, places.TEXT | P | RW | NX)],
        ),
        "0x106000 .*not executable: PTE NX=1",
    ),
)

JUMPS = (
    Broken(
        "out of the image",
        early(calls(RAW), patches=[(RAW, b"\x0f\x0b")]),
        "RIP is outside of all that has a symbol; it was called at 0x1013.., main",
        "reason",
        NAMED,
    ),
    Broken(
        "a jump through a register",
        early(lambda code: (code.mov(operands.RBX, places.UNMAPPED), code.jmp(operands.RBX))),
        "RBX holds that address, as for a jump through RBX",
        "reason",
    ),
    Broken(
        "a return to nowhere",
        early(lambda code: (code.mov(RAX, 0), code.push(RAX), code.ret()), unmapped={0}),
        "the stack has that address below its top, at 0x111ff8, as a return leaves it",
        "reason",
    ),
    Broken(
        "half a kernel",
        early(calls(ELSEWHERE), unmapped={0}),
        "the code at RIP is zeros.*; the last call on the stack is at 0x1013",
        "reason",
    ),
    Broken(
        "a handler that was not loaded",
        kernel(
            gates={Vector.UD: Gate(ELSEWHERE)},
            unmapped={0},
            raises=lambda made: (made.code.mov(RAX, 0), undefined(made)),
        ),
        r"RIP is the handler in IDT entry 6 \(#UD\)",
        "reason",
    ),
    Broken(
        "64-bit code in a 32-bit segment",
        raw(FAR_RETURN + WIDE_CODE, more=[(GDT + SPARE, qword(CODE_32))]),
        "looks like 64-bit code, and CS 0x48 is 32-bit code: its descriptor lacks L",
        "reason",
    ),
)

RULES = (*INSTRUCTIONS, *MEMORY, *JUMPS)
"""In this process and on QEMU alike."""
ON_QEMU_ALONE = (
    Broken(
        "BMI", raw(b"\xc4\xe2\xf8\xf2\xd8"), r"BMI1, which the guest's CPU lacks \(CPUID function 0x7, EBX", "reason"
    ),
    Broken(
        "XCR0",
        raw(XCR0_OF_SSE + VXORPS, prepare=sets(operands.CR4, CR4.OSXSAVE)),
        "XCR0 lacks bit 2, AVX",
        "reason",
        cpu="max",
    ),
)
"""Unicorn has BMI1, and nothing of AVX."""
