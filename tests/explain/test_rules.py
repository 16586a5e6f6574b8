"""Each rule about what raised an exception, on a state of its own."""

import pytest

from tests.explain.machines import (
    CODE,
    CODE_0,
    CODE_3,
    DATA_0,
    DATA_3,
    GDT,
    IDT,
    PDPT,
    PML4,
    STACK,
    TSS,
    Machine,
    fault,
    page_fault,
)  # fmt: skip
from trapline.arch import cpuid, msr
from trapline.arch.events import Event, EventType
from trapline.arch.features import INSTRUCTIONS
from trapline.arch.paging import PS, RW, US, A, D, P
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import CR0 as REGISTER_CR0
from trapline.asm.operands import CR3, DS, EAX, EBX, RAX, Mem
from trapline.asm.operands import CR4 as REGISTER_CR4
from trapline.explain.cpuid import CpuidAnswers
from trapline.explain.origin import reason

LONG = EFER.LME | EFER.LMA | EFER.NXE
LEGACY = {"efer": 0, "cr0": CR0.PE, "cr4": 0, "cs.attributes": 0xC9B, "cs.limit": 0xFFFF_FFFF, "ss.limit": 0xFFFF_FFFF}
FLAT = {"ds.selector": DATA_0, "ds.limit": 0xFFFF_FFFF, "ds.attributes": 0xC93}
FULL = P | RW | A | D
UD, GP = fault(Vector.UD), fault(Vector.GP, 0)
NOTHING = {(function, 0): (0, 0, 0, 0) for function in (1, 7, 0xD, 0x8000_0001, 0x8000_0008)}
EVERYTHING = dict.fromkeys(NOTHING, (4294967295,) * 4)
XSETBV = b"\x0f\x01\xd1"


def code(emit, bits=64):
    assembler = Assembler(bits)
    emit(assembler)
    return assembler.assemble(CODE)


def told(event, code, fields=(), answers=(), address=None, stored=()):
    """Return the reason for an event at an instruction."""
    machine = Machine(code, **dict(fields))
    for gpa, *values in stored:
        machine.put(gpa, *values)
    evidence = machine.evidence(event, first_address=address)._replace(cpuid=CpuidAnswers(dict(answers)))
    return reason(evidence, machine.attempt(event))


NO_OSXSAVE = "vmovaps is an AVX instruction, and CR4.OSXSAVE is clear: AVX is disabled"
NO_SCE = "needs EFER.SCE, which is clear: the system call extensions are not enabled"


def lacking(name, feature, place):
    more = "QEMU's -cpu max has more"
    if feature == "AVX":
        more = "Unicorn, which runs guests in this process, has no AVX; QEMU has: --processor qemu -- -cpu max"
    return f"{name} is an instruction of {feature}, which the guest's CPU lacks (CPUID function {place}): {more}"


UNDEFINED = [
    (b"\x8e\xc8", {}, {}, "mov to CS always raises #UD: only a far jump, call or return loads CS"),
    (b"\xf0\x01\xd8", {}, {}, "the instruction may not have its LOCK prefix"),
    (XSETBV, {}, EVERYTHING, "xsetbv needs CR4.OSXSAVE, which is clear"),
    (XSETBV, {}, NOTHING, lacking("xsetbv", "XSAVE", "0x1, ECX bit 26") + "; xsetbv needs CR4.OSXSAVE, which is clear"),
    (b"\x0f\xae\x20", {}, EVERYTHING, "xsave needs CR4.OSXSAVE, which is clear"),
    (b"\xc4\xe2\xf8\xf2\xd8", {}, NOTHING, lacking("andn", "BMI1", "0x7, EBX bit 3")),
    (b"\xc5\xf8\x28\xc1", {}, NOTHING, f"{lacking('vmovaps', 'AVX', '0x1, ECX bit 28')}; {NO_OSXSAVE}"),
    (b"\xc5\xf8\x28\xc1", {}, EVERYTHING, NO_OSXSAVE),
    (b"\xc5\xf8\x28\xc1", {"cr4": CR4.PAE | CR4.OSXSAVE}, EVERYTHING | {(0xD, 0): (7, 0x240, 0x340, 0)},
     "vmovaps is an AVX instruction, and XCR0 lacks bit 2, AVX: XSETBV has not enabled it"),
    (b"\xc5\xf8\x28\xc1", {"cr4": CR4.PAE | CR4.OSXSAVE}, EVERYTHING | {(0xD, 0): (7, 0x340, 0x340, 0)}, None),
    (b"\x0f\x05", {}, {}, f"syscall {NO_SCE}"),
    (b"\x48\x0f\x07", {}, EVERYTHING, f"sysretq {NO_SCE}"),
    (b"\x0f\x05", {"efer": LONG | EFER.SCE}, EVERYTHING, None),
    (b"\xf3\x48\x0f\xae\xd8", {}, EVERYTHING, "wrgsbase needs CR4.FSGSBASE, which is clear"),
    (b"\x0f\x00\xd8", {**LEGACY, "cr0": 0, "cs.base": 0, "cs.selector": 0, "cs.attributes": 0x9B}, {},
     "ltr is not an instruction of real or virtual-8086 mode"),
    (b"\x06", {}, {}, "the bytes at RIP are not a valid instruction"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "fields", "answers", "expected"), UNDEFINED)
def test_why_an_instruction_is_undefined(code, fields, answers, expected):
    assert told(UD, code, fields, answers) == expected


def test_code_where_there_is_no_memory():
    found = told(UD, b"\x90", {"rip": 0x1_0000}, stored=[(PDPT, PS | FULL)])
    assert found == "the bytes at RIP are not a valid instruction: RIP is mapped to 0x10000, where there is no memory"


def test_every_feature_of_the_table_is_one_of_the_decoder():
    import iced_x86

    assert all(hasattr(iced_x86.CpuidFeature, name) for name in INSTRUCTIONS)
    assert len(set(INSTRUCTIONS.values())) == len(INSTRUCTIONS)


def moves(register):
    return code(lambda c: c.mov(register, RAX))


NO_PCIDE = "the guest's CPU lacks PCIDE (CPUID function 0x1, ECX bit 17)"
NO_PAE = "the guest's CPU lacks PAE (CPUID function 0x1, EDX bit 6)"
CONTROL = [
    (moves(REGISTER_CR0), 1 << 32, {}, {}, "for CR0: bits 63:32 are reserved"),
    (moves(REGISTER_CR0), CR0.PG, {}, {}, "for CR0: PG, paging, needs PE, protected mode"),
    (moves(REGISTER_CR0), CR0.PE | CR0.PG | CR0.NW, {}, {}, "for CR0: NW may not be set while CD is clear"),
    (moves(REGISTER_CR0), CR0.PE | CR0.WP, {}, {}, "for CR0: paging cannot be turned off in 64-bit code"),
    (code(lambda c: c.mov(REGISTER_CR0, EAX), 32), CR0.PE | CR0.PG, {**LEGACY, "efer": EFER.LME}, {},
     "for CR0: EFER.LME is set, and long mode needs CR4.PAE, which is clear, before paging is turned on"),
    (moves(CR3), 0xFFFF_FFFF_8000_1000, {}, {},
     "for CR3: a physical address has 40 bits; it takes the physical address of the table, and this is a linear one"),
    (moves(REGISTER_CR4), CR4.PAE | CR4.SMEP, {}, NOTHING,
     f"for CR4: {NO_PAE}; the guest's CPU lacks SMEP (CPUID function 0x7, EBX bit 7)"),
    (moves(REGISTER_CR4), 1 << 40 | CR4.PAE, {}, EVERYTHING, "for CR4: bit 40 is reserved"),
    (moves(REGISTER_CR4), CR4.PGE, {}, EVERYTHING, "for CR4: PAE cannot be cleared in long mode"),
    (moves(REGISTER_CR4), CR4.PAE | CR4.LA57, {}, EVERYTHING, "for CR4: LA57 cannot change in long mode"),
    (moves(REGISTER_CR4), CR4.PAE | CR4.PCIDE, {"cr3": PML4 | 5}, EVERYTHING,
     "for CR4: PCIDE cannot be set while CR3[11:0] is not zero, and it is 0x5"),
    (moves(REGISTER_CR4), CR4.PAE | CR4.PCIDE, {"cr3": PML4 | 5}, EVERYTHING | {(1, 0): (0, 0, 0, 1 << 6)},
     f"for CR4: {NO_PCIDE}; PCIDE cannot be set while CR3[11:0] is not zero, and it is 0x5"),
    (moves(REGISTER_CR4), CR4.PAE | CR4.CET, {"cr0": CR0.PE | CR0.PG}, EVERYTHING,
     "for CR4: CET needs CR0.WP, which is clear"),
    (moves(REGISTER_CR4), CR4.PAE, {}, EVERYTHING, "for CR4"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "value", "fields", "answers", "expected"), CONTROL)
def test_why_a_control_register_does_not_take_a_value(code, value, fields, answers, expected):
    assert told(GP, code, {"rax": value, **fields}, answers) == f"the CPU rejects the value {value:#x} {expected}"


NO_LME = "the guest's CPU lacks LME (CPUID function 0x80000001, EDX bit 29)"
NO_NXE = "the guest's CPU lacks NXE (CPUID function 0x80000001, EDX bit 20)"
MSRS = [
    (msr.EFER, LONG | 1 << 40, EVERYTHING, "0x10000000d00 to EFER (0xc0000080): bit 40 is reserved"),
    (msr.EFER, LONG, NOTHING, f"0xd00 to EFER (0xc0000080): {NO_LME}; {NO_NXE}"),
    (msr.LSTAR, 1 << 47, {}, "0x800000000000 to LSTAR (0xc0000082): it is not a canonical address"),
    (msr.PAT, 0x0007_0406_0007_0402, {}, "0x7040600070402 to PAT (0x277): 0x2 is not a memory type"),
    (0x1234, 5, {}, "0x5 to MSR 0x1234"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "value", "answers", "expected"), MSRS)
def test_why_an_msr_does_not_take_a_value(number, value, answers, expected):
    fields = {"rcx": number, "rax": value & 0xFFFF_FFFF, "rdx": value >> 32}
    assert told(GP, code(lambda c: c.wrmsr()), fields, answers) == f"the CPU rejects wrmsr of {expected}"


@pytest.mark.parametrize(
    ("number", "value", "expected"),
    [
        (1, 7, "0x7 for XCR1: there is no XCR1"),
        (0, 6, "0x6 for XCR0: bit 0, x87, must be set"),
        (0, 5, "0x5 for XCR0: bit 2, AVX, needs bit 1, SSE"),
        (0, 0xE7, "0xe7 for XCR0: the guest's CPU has 0x7 alone"),
        (0, 7, "0x7 for XCR0"),
    ],
)
def test_why_xcr0_does_not_take_a_value(number, value, expected):
    found = told(GP, XSETBV, {"rcx": number, "rax": value}, {(0xD, 0): (7, 0x340, 0x340, 0)})
    assert found == f"the CPU rejects the value {expected}"


def test_the_registers_of_the_tables_are_those_of_cpuid():
    assert (cpuid.EAX, cpuid.EBX, cpuid.ECX, cpuid.EDX) == (0, 1, 2, 3)


def test_a_gate_that_a_program_may_not_call():
    gate = IDT + 16 * 0x1F
    found = told(
        fault(Vector.GP, 0x1F * 8 + 2), b"\xcd\x1f", {"cpl": 3, "cs.selector": CODE_3 | 3}, stored=[(gate, CODE)]
    )
    assert found == "INT 0x1f goes through entry 0x1f of the IDT, whose DPL is 0, at CPL 3"
    beyond = told(fault(Vector.GP, 0x402), b"\xcd\x80")
    assert beyond == "INT 0x80 needs entry 0x80 of the IDT, which is beyond IDTR.limit 0x1ff"
    assert told(fault(Vector.GP, 0x1FA), b"\xcd\x1f", stored=[(gate, 0)]).endswith("of the IDT, which is empty")
    assert told(fault(Vector.GP, 0x33), b"\x90") is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ds.selector": 0}, "mov accesses memory through DS, which is null"),
        ({**FLAT, "ds.limit": 0xFFF}, "mov accesses offset 0x1000, beyond the limit of DS, 0xfff"),
        ({**FLAT, "ds.limit": 0xFFF, "ds.attributes": 0xC97}, None),
        (FLAT, None),
    ],
)
def test_a_segment_that_is_null_or_too_short(fields, expected):
    assert told(GP, code(lambda c: c.mov(EAX, Mem(EBX)), 32), {**LEGACY, "rbx": 0x1000, **fields}) == expected


def test_a_port_that_a_program_may_not_use():
    found = told(GP, b"\xee", {"cpl": 3})
    assert found == "out at CPL 3: RFLAGS.IOPL is 0, and the I/O map of the TSS does not permit the port"


def test_a_far_jump_is_named_whole():
    far = told(fault(Vector.GP, 0x1000), b"\xff\x2b", {"rbx": 0x7000})
    assert far == "jmp far uses the selector 0x1000, which is beyond the end of the GDT (limit 0x27)"


JMP_FAR = b"\xea\x00\x60\x00\x00\x03\x00"
BY_RBX = {"rbx": 0x7000}


@pytest.mark.parametrize(
    ("code", "fields", "stored", "expected"),
    [
        (JMP_FAR, {**LEGACY, **FLAT}, (), "jmp far loads CS with 0x3, which is null"),
        (b"\xff\x2b", {**LEGACY, **FLAT, **BY_RBX}, [(0x7000, CODE)], "jmp far loads CS with 0x0, which is null"),
        (b"\xff\x1b", BY_RBX, [(0x7000, CODE | 1 << 32)], "call far loads CS with 0x1, which is null"),
        (b"\xff\x2b", BY_RBX, [(0x7000, CODE | 8 << 32)], None),
        (b"\x8e\xd0", {**LEGACY, **FLAT, "rax": 0}, (), "mov loads SS with 0x0, which is null"),
        (b"\x8e\xd0", {"rax": 0}, (), None),
        (b"\x8e\xd0", {"rax": 1}, (), "mov loads SS with 0x1, which is null"),
        (b"\x17", {**LEGACY, **FLAT}, [(STACK, 0)], "pop loads SS with 0x0, which is null"),
        (b"\x0f\xb2\x23", {**LEGACY, **FLAT, **BY_RBX}, [(0x7000, CODE)], "lss loads SS with 0x0, which is null"),
        (b"\x0f\x00\xd8", {"rax": 0}, (), "ltr loads TR with 0x0, which is null"),
        (b"\x8e\xd8", {"rax": 0}, (), None),
        (JMP_FAR, {**LEGACY, **FLAT, "rflags": 2 | RFLAGS.VM}, (), None),
    ],
)
def test_a_null_selector(code, fields, stored, expected):
    assert told(GP, code, fields, stored=stored) == expected


FRAME = (CODE, CODE_0, 2, STACK + 0x100, DATA_0)
USER_FRAME = (CODE, CODE_3 | 3, 0x202, STACK + 0x100, DATA_3 | 3)
IRETQ, IRETD, RETFQ = b"\x48\xcf", b"\xcf", b"\x48\xcb"


def test_an_error_code_that_was_not_popped():
    assert told(GP, IRETQ, stored=[(STACK, 2, *FRAME)]) == (
        "the error code, 0x2, is still on the stack: the frame of iretq is 8 bytes higher (iretq pops CS 0x6000, "
        "which is beyond the end of the GDT (limit 0x27))"
    )
    # What is higher is not a frame either.
    assert told(GP, IRETQ, stored=[(STACK, 2, CODE, CODE_0, 0, 0, 0)]).startswith("iretq pops CS 0x6000")


def test_a_narrow_iret_in_64_bit_code():
    assert told(GP, IRETD, stored=[(STACK, *FRAME)]) == (
        "iretd pops values of 32 bits, and the frame has 64: in 64-bit code it takes iretq"
    )


def test_iret_with_nested_task():
    nested = {"rflags": 2 | RFLAGS.NT}
    assert told(GP, IRETQ, nested).startswith("RFLAGS.NT, nested task, is set, and in long mode iretq cannot return")
    legacy = {**LEGACY, **nested, "tr.base": TSS}
    assert told(fault(Vector.TS, 0x18), IRETD, legacy) == (
        "RFLAGS.NT, nested task, is set: iretd returns to the previous task, and no TSS is loaded"
    )
    linked = told(fault(Vector.TS, 0x18), IRETD, {**legacy, "tr.selector": 0x28}, stored=[(TSS, 0x18)])
    assert linked.endswith("and the back link of the TSS is 0x18, which is 64-bit code of DPL 3")


def test_a_far_return():
    assert told(GP, RETFQ, stored=[(STACK, CODE, 0)]) == "retf pops CS 0x0, which is null"
    outer = told(fault(Vector.GP, DATA_0), RETFQ, stored=[(STACK, CODE, CODE_3 | 3, STACK, DATA_0)])
    assert outer == "retf pops SS 0x10, which is a data segment of DPL 0, but the new CPL is 3"
    assert told(GP, RETFQ, stored=[(STACK, CODE, CODE_0)]) is None


def test_the_stack_of_iretq_is_a_tss():
    found = told(fault(Vector.GP, 0x10), IRETQ, stored=[(STACK, *FRAME), (GDT + DATA_0, 0x0000_8900_0000_0067)])
    assert found == "iretq pops SS 0x10, which is a TSS of DPL 0, not writable data"


GS_READ = b"\x65\x48\x8b\x04\x25\x10\x00\x00\x00"
PD = 0x9000
UNMAPPED_0 = [
    (PML4, PDPT | FULL | US),
    (PDPT, PD | FULL),
    (PD, 0xA000 | FULL),
    *((0xA000 + 8 * n, n << 12 | FULL) for n in range(1, 16)),
]
"""Tables that map all but the first page."""


@pytest.mark.parametrize(
    ("base", "kernel", "expected"),
    [
        (0, 0, "the base of GS is 0x0 (KERNEL_GS_BASE is 0x0)"),
        (0, 0xFFFF_8000_0000_0000, "the base of GS is 0x0 (KERNEL_GS_BASE is 0xffff800000000000)"),
        (0x10, 0xFFFF_8000_0000_0000, "the base of GS is 0x10 (KERNEL_GS_BASE is 0xffff800000000000)"),
        (0x10, 0x20, None),
    ],
)
def test_the_base_of_gs_in_kernel_code(base, kernel, expected):
    found = told(
        page_fault(0), GS_READ, {"gs.base": base, "kernel_gs_base": kernel}, address=base + 16, stored=UNMAPPED_0
    )
    assert found.startswith(f"read of {base + 16:#x}, a null pointer (not mapped: PTE is 0x0)")
    assert (expected is None) == ("GS" not in found)
    assert expected is None or expected in found


def test_a_string_instruction_that_runs_downwards():
    fields = {"rflags": 2 | RFLAGS.DF, "rdi": 1 << 30, "rcx": 5}
    found = told(page_fault(2), b"\xf3\xa5", fields, address=(1 << 30) - 4)
    assert found.endswith("; RFLAGS.DF is set, so that movsd runs downwards")
    assert "DF" not in told(page_fault(2), b"\xf3\xa5", {"rdi": 1 << 30}, address=(1 << 30) - 4)


def test_a_descriptor_in_a_page_that_is_read_only():
    pages = [*UNMAPPED_0, (0xA000 + 8 * (GDT >> 12), GDT | P | A)]
    found = told(page_fault(3), code(lambda c: c.mov(DS, EAX)), {"rax": DATA_0}, address=GDT + DATA_0 + 5, stored=pages)
    assert found == (
        "write to 0x3015 (not writable: PTE R/W=0); the CPU sets the accessed bit of descriptor 0x10 as it loads it: "
        "its page must be writable"
    )


def test_a_stack_that_overflowed():
    pages = [*UNMAPPED_0, (0xA000 + 8 * 7, 0)]
    push = code(lambda c: c.push(RAX))
    found = told(page_fault(2), push, {"rsp": 0x8000}, address=0x7FF8, stored=pages)
    assert found.endswith("; the stack overflowed: the stack pointer is 0x8000, and the page below is not mapped")
    wild = told(page_fault(2), push, {"rsp": 1 << 41}, address=(1 << 41) - 8)
    assert wild.endswith("; the stack pointer, 0x20000000000, does not point to a stack")


def test_a_call_through_a_null_pointer():
    call = b"\xff\xd0"
    stored = [*UNMAPPED_0, (STACK, CODE + 2)]
    found = told(page_fault(0x10), call, {"rip": 0}, address=0, stored=stored)
    assert found == "fetch from 0x0, a null pointer (not mapped: PTE is 0x0); it was called at 0x6000"
    # A return address of a call that went elsewhere.
    direct = b"\xe8\0\0\0\0"
    assert "called" not in told(
        page_fault(0x10), direct, {"rip": 0}, address=0, stored=[*UNMAPPED_0, (STACK, CODE + 5)]
    )


RETURNED = "the stack has that address below its top, at 0x7ff8, as a return leaves it"


@pytest.mark.parametrize(
    ("fields", "stored", "expected"),
    [
        ({"rcx": 1 << 40}, (), "RCX holds that address, as for a jump through RCX"),
        ({"rax": 1 << 40, "r15": 1 << 40}, (), "RAX and R15 hold that address, as for a jump through one of them"),
        (
            {"rax": 1 << 40},
            [(STACK - 8, 1 << 40)],
            RETURNED,
        ),
        ({"rbp": 1 << 40, "rip": 0}, (), None),
        (
            {"rip": 0},
            [(STACK - 8, 0)],
            RETURNED,
        ),
        ({"rip": 0, "rax": 0}, [(STACK - 8, 1)], None),
        ({"rcx": 1}, (), None),
    ],
)
def test_a_jump_to_where_nothing_is_mapped(fields, stored, expected):
    wild = {"rip": 1 << 40, **fields}
    found = told(page_fault(0x10), b"", wild, address=wild["rip"], stored=[*UNMAPPED_0, (STACK - 8, 5), *stored])
    _, _, arrived = found.partition("); ")
    assert arrived == (expected or "")


def test_a_jump_to_an_address_that_is_not_canonical():
    found = told(GP, b"", {"rip": 1 << 47, "r9": 1 << 47})
    assert found == (
        "execution went to 0x800000000000, which is not a canonical address; R9 holds that address, as for a jump "
        "through R9"
    )


def test_execution_of_zeros():
    found = told(page_fault(2), b"\x90", {"rip": CODE + 0x48}, address=1 << 40, stored=[(STACK, 0)])
    assert found.endswith(
        "; the code at RIP is zeros, 64 bytes of them before it: nothing was loaded there, or execution ran out of the "
        "code"
    )
    assert "zeros" not in told(page_fault(2), b"\0\0\x90", address=1 << 40)


def test_the_stack_in_the_page_tables():
    found = told(UD, b"\x0f\x0b", {"rsp": PML4 + 0x800})
    assert found == ("ud2 always raises #UD; the stack, at 0x1800, is inside the page tables: 0x1000 is one of them")
    idt = told(UD, b"\x0f\x0b", {"idtr.base": PDPT})
    assert idt.endswith("; the IDT, at 0x2000, is inside the page tables: 0x2000 is one of them")


def test_the_stack_in_the_gdt_or_the_idt():
    assert told(UD, b"\x0f\x0b", {"rsp": GDT + 0x10}).endswith(
        "; the stack, at 0x3010, is inside the GDT, which begins at 0x3000"
    )
    assert told(UD, b"\x0f\x0b", {"rsp": IDT + 0x10}).endswith(
        "; the stack, at 0x4010, is inside the IDT, which begins at 0x4000"
    )


def test_protected_mode_without_a_far_jump():
    real = {**LEGACY, "cs.selector": 0, "cs.base": 0, "cs.attributes": 0x9B, "cs.limit": 0xFFFF}
    assert told(UD, b"\x0f\x0b", real) == (
        "ud2 always raises #UD; CR0.PE was set without a far jump: CS 0x0 (base 0x0, 16-bit code) is still that of "
        "real mode"
    )
    assert told(UD, b"\x0f\x0b", {**real, "cr0": 0}) == "ud2 always raises #UD"
    assert told(UD, b"\x0f\x0b", {**real, "cs.selector": CODE_0, "cs.attributes": 0x9B}) == "ud2 always raises #UD"


WIDE = b"\x48\x89\xc3\x48\x8b\x03\x0f\x0b"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cs.attributes": 0xC9B}, "and CS 0x8 is 32-bit code: its descriptor lacks L"),
        (LEGACY, "and long mode is not active: paging is off"),
        (
            {**LEGACY, "cr0": CR0.PE | CR0.PG, "cr4": CR4.PSE, "cr3": PD},
            "EFER.LME was not set before paging",
        ),
        ({}, None),
    ],
)
def test_64_bit_code_in_another_mode(fields, expected):
    found = told(UD, WIDE, {"rip": CODE + 6, **fields}, stored=[(PD, PS | FULL)])
    assert found == "ud2 always raises #UD" if expected is None else found.endswith(expected)


def test_vectors_of_real_mode_are_not_taken_for_64_bit_code():
    assert told(UD, bytes.fromhex("4dff00f0" * 6 + "0f0b" + "4dff00f0" * 6), {"rip": CODE + 24, **LEGACY}) == (
        "ud2 always raises #UD"
    )


def test_a_call_of_the_bios_in_protected_mode():
    call = Event(0x10, EventType.SOFT)
    idtr = {"idtr.base": 0, "idtr.limit": 0x3FF}
    assert told(call, b"\xcd\x10", idtr) == "INT 0x10 is a call of the BIOS, which works in real mode only"
    assert told(call, b"\xcd\x10") is None
    assert told(Event(0x80, EventType.SOFT), b"\xcd\x80", idtr) is None


def test_a_far_jump_is_not_said_to_be_missing_where_it_fails():
    real = {**LEGACY, "cs.selector": 0, "cs.base": 0, "cs.attributes": 0x9B, "cs.limit": 0xFFFF}
    jump = b"\xea\x00\x60\x08\x00"
    found = told(fault(Vector.GP, CODE_0), jump, {**real, "gdtr.base": TSS})
    assert found == (
        "jmp far uses the selector 0x8, which is an empty entry of the GDT; GDTR has base 0x5000 and limit 0x27, where "
        "there is not one descriptor of code or data: that is not a GDT, and LGDT may have read its operand through "
        "another segment or address"
    )


def test_execution_that_ran_through_zeros_into_a_page_that_is_not_mapped():
    pages = [*UNMAPPED_0, (0xA000 + 8 * 8, 0), (STACK - 0x1000, *[0] * 512)]
    found = told(page_fault(0x10), b"\x90", {"rip": 0x8000, "rsp": 0x7F00}, address=0x8000, stored=pages)
    assert found == (
        "fetch from 0x8000 (not mapped: PTE is 0x0); execution ran through zeros to there, at least 2048 bytes of them"
    )


def on_ist(rsp, cs=CODE_0):
    gate = CODE & 0xFFFF | CODE_0 << 16 | 1 << 32 | 0x8E << 40
    return told(
        UD, b"\x0f\x0b", {"rsp": rsp, "tr.base": TSS, "tr.limit": 0x67},
        stored=[(IDT + 16 * Vector.UD, gate), (TSS + 0x24, STACK), (STACK - 40, CODE, cs, 2, STACK, DATA_0)],
    )  # fmt: skip


def test_an_ist_stack_that_is_in_use():
    assert on_ist(STACK - 0x80) == (
        "ud2 always raises #UD; IST1, 0x8000, is the top of the stack in use (RSP is 0x7f80): the delivery overwrites "
        "the frame of the exception that is being handled"
    )
    assert on_ist(STACK - 0x2000) == on_ist(STACK + 0x100) == on_ist(STACK - 0x80, cs=0) == "ud2 always raises #UD"


NOPS = [(CODE - 0x40, *[0x9090_9090_9090_9090] * 8)]


def test_kernel_code_that_uses_the_red_zone():
    def found(code, **fields):
        return told(page_fault(0), code, {"rip": CODE + 5, "rax": 1 << 40, **fields}, address=1 << 40, stored=NOPS)

    reads = b"\x48\x8b\x44\x24\xf8\x8b\x00"  # mov rax, [rsp-8]; mov eax, [rax]
    assert found(reads).endswith(
        "; the code uses the red zone ([rsp-0x8] at 0x6000), which each interrupt at CPL 0 overwrites: kernels are "
        "built with -mno-red-zone"
    )
    assert "red zone" not in found(reads, cpl=3)
    for other in (b"\x48\x8d\x64\x24\xf8\x8b\x00", b"\x48\x89\x44\x24\xf8\x8b\x00"):  # lea rsp, [rsp-8]; a store
        assert "red zone" not in found(other)
    assert "red zone" not in found(b"\x48\x8b\x44\x24\x08\x8b\x00")


def test_a_handler_that_is_not_code():
    gate = CODE + 0x100 | CODE_0 << 16 | 0x8E << 40
    found = told(page_fault(2), b"\x90", {"rip": CODE + 0x100}, address=1 << 40, stored=[(IDT + 16 * 3, gate)])
    assert found.endswith("or execution ran out of the code; RIP is the handler in IDT entry 3 (#BP)")


def test_a_call_to_where_the_symbols_have_nothing():
    machine = Machine(b"\xff\xd0\x0f\x0b", rip=CODE + 2)
    machine.put(STACK, CODE + 2)
    named = {CODE: "main+0x10"}.get
    assert reason(machine.evidence(UD), machine.attempt(UD), named) == (
        "ud2 always raises #UD; RIP is outside of all that has a symbol; it was called at 0x6000, main+0x10"
    )
    all_named = {CODE: "main", CODE + 2: "main"}.get
    assert reason(machine.evidence(UD), machine.attempt(UD), all_named) == "ud2 always raises #UD"
    assert reason(machine.evidence(UD), machine.attempt(UD)) == "ud2 always raises #UD"


@pytest.mark.parametrize(
    ("name", "cpl", "expected"),
    [
        ("main+0x1f", 0, "; the stack, at 0x8000, is inside the code of main+0x1f: what is pushed overwrites it"),
        ("boot_stack+0x1f", 0, ""),
        ("main+0x1f", 3, ""),
    ],
)
def test_a_stack_in_a_function(name, cpl, expected):
    machine = Machine(b"\x0f\x0b", cpl=cpl)
    names = {STACK: "after", STACK - 1: name}.get  # the next push is below the stack pointer
    assert reason(machine.evidence(UD), machine.attempt(UD), names) == f"ud2 always raises #UD{expected}"


def test_a_stack_in_the_tss():
    tss = {"rsp": TSS + 0x40, "tr.base": TSS, "tr.limit": 0x67}
    assert told(UD, b"\x0f\x0b", tss) == "ud2 always raises #UD"  # none is loaded
    found = told(UD, b"\x0f\x0b", {**tss, "tr.selector": 0x28})
    assert found == "ud2 always raises #UD; the stack, at 0x5040, is inside the TSS, which begins at 0x5000"


@pytest.mark.parametrize(
    ("table", "rsp", "inside"),
    [
        ("idtr", 0x800, True), ("idtr", 0x1008, False), ("gdtr", 0x800, False),
        ("tr", 0x40, True), ("tr", 0x68, False),
    ],
)  # fmt: skip
def test_a_limit_says_little_of_a_tables_size(table, rsp, inside):
    fields = {f"{table}.base": 0xC000, f"{table}.limit": 0xFFFF, "tr.selector": 0x28}
    found = told(UD, b"\x0f\x0b", {**fields, "rsp": 0xC000 + rsp})
    assert found.startswith("ud2 always raises #UD; the stack, at 0xc") is inside


@pytest.mark.parametrize(("limit", "rsp", "inside"), [
    (0x3FF, 0x40, True), (0x3FF, 0x400, False), (0x3FF, 0, False), (0xFFFF, 0x40, True), (0xFFFF, 0x7B70, False),
])  # fmt: skip
def test_a_stack_in_the_vector_table(limit, rsp, inside):
    real = {**LEGACY, "cr0": 0, "cs.base": 0, "cs.selector": 0, "cs.attributes": 0x9B, "ss.base": 0, "ss.selector": 0}
    found = told(UD, b"\x0f\x0b", {**real, "rsp": rsp, "idtr.base": 0, "idtr.limit": limit})
    assert found == "ud2 always raises #UD" + (
        "; the stack, at 0x40, is inside the vector table (IVT), which begins at 0x0" if inside else ""
    )
