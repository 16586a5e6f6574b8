"""Guests with the mistakes that stop kernels before they handle exceptions: in paging, modes, and the first fault."""

from tests.explain.broken import (
    GDT,
    SPARE,
    Broken,
    early,
    kernel,
    page,
    qword,
    real_lidt,
    returns_to,
    undefined,
)  # fmt: skip
from trapline.arch import msr
from trapline.arch.paging import NX, PS, RW, P
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.operands import DS, EAX, ECX, EDX, RAX, RCX, RSP, Mem
from trapline.guests.samples import places
from trapline.guests.samples.tables import Gate

ROOT, TABLE, PART = places.LAZY_PAGES, places.LAZY_DIRECTORY, places.PAGES
"""Pages for tables of our own; a 64-bit guest uses the last one itself."""
RAW = places.LAZY_PAGES
"""Where a guest has code as bytes."""
LARGE = P | RW | PS


def raw(data, bits=64, prepare=None, more=(), **attributes):
    """Return a kernel without an IDT that jumps to code that is given as bytes, as `more` patches are."""

    def raises(made):
        made.code.mov(RAX if bits == 64 else EAX, RAW)
        made.code.jmp(RAX if bits == 64 else EAX)

    return kernel(bits, raises=raises, prepare=prepare, loads_idt=False, patches=[(RAW, data), *more], **attributes)


def sets(register, bits, clears=0):
    """Return code of any size that changes bits of CR0 or CR4."""

    def prepare(made):
        wide = RAX if made.bits == 64 else EAX
        made.code.mov(wide, register)
        if clears:
            made.code.and_(EAX, ~clears & 0xFFFF_FFFF)
        made.code.or_(EAX, bits)
        made.code.mov(register, wide)

    return prepare


def efer(bits, clears=0):
    """Return code that changes bits of EFER."""

    def prepare(made):
        made.code.mov(ECX, msr.EFER)
        made.code.rdmsr()
        made.code.and_(EAX, ~clears & 0xFFFF_FFFF)
        made.code.or_(EAX, bits)
        made.code.wrmsr()

    return prepare


def loads_cr3(value):
    def emit(made):
        wide = RAX if made.bits == 64 else EAX
        made.code.mov(wide, value)
        made.code.mov(operands.CR3, wide)

    return emit


def turns_paging_on(root, cr4=0, lme=False):
    """Return code of 32 bits that turns paging on."""

    def raises(made):
        loads_cr3(root)(made)
        if cr4:
            sets(operands.CR4, cr4)(made)
        if lme:
            efer(EFER.LME)(made)
        sets(operands.CR0, CR0.PG)(made)

    return raises


def paging(name, raises, expected, patches=(), place="cause", bits=32):
    return Broken(name, kernel(bits, raises=raises, loads_idt=False, patches=patches), expected, place)


def flags_set(bits):
    def emit(code):
        code.pushfq()
        code.or_(Mem(RSP, size=64), bits)
        code.popfq()
        returns_to(places.CODE, places.CODE_SELECTOR)(code)

    return emit


def wrmsr(number, value):
    def emit(code):
        code.mov(ECX, number)
        code.mov(EAX, value & 0xFFFF_FFFF)
        code.mov(EDX, value >> 32)
        code.wrmsr()

    return emit


def keeps_the_error_code(made):
    """A handler of #PF that returns with the error code on the stack, and no other handler."""
    made.gates = {Vector.PF: "keeps it"}
    made.code.mov(RAX, places.UNMAPPED)
    made.code.mov(EAX, Mem(RAX))
    made.code.label("keeps it")
    made.code.iretq()


def runs_zeros(code):
    code.mov(RAX, 0)
    code.mov(RCX, places.FRAMES)
    code.jmp(RCX)


def loads_unmarked_descriptor(made):
    """Load a descriptor without its accessed bit from a page that has become read-only."""
    code = made.code
    code.and_(Mem(None, places.PAGES + GDT // 0x1000 * 8, size=64), ~RW & 0x7FFF_FFFF)
    loads_cr3(places.PML4)(made)
    code.mov(EAX, SPARE)
    code.mov(DS, operands.AX)


def jumps_to_user(made):
    sets(operands.CR4, CR4.SMEP)(made)
    made.user.nop()
    made.code.mov(RAX, places.USER)
    made.code.jmp(RAX)


DIRECTORY_32 = [(ROOT, LARGE.to_bytes(4, "little"))]
NO_ACCESS = 0x00CF_9200_0000_FFFF
"""Writable data without the accessed bit."""
WIDE_CODE = b"\x48\x89\xc3\x48\x89\xd8\x48\x8b\xc3\x0f\x0b"

PAGING = (
    paging("no identity map", turns_paging_on(TABLE), "paging was just turned on.*an identity map"),
    paging("empty PML4", loads_cr3(ROOT), "CR3 was just loaded.*the PML4 at 0x10f000 has no present entry", bits=64),
    paging(
        "CR3 not aligned",
        loads_cr3(ROOT + 0x800),
        "CR3 is 0x10f800, which is not aligned to 4096 bytes: the CPU ignores its low bits",
        [(ROOT + 0x800, qword(places.PDPT | P | RW))],
        bits=64,
    ),
    paging(
        "linear address in CR3",
        turns_paging_on(0xC000_0000 + ROOT, CR4.PSE),
        "CR3 is 0xc010f000, where there is no memory",
        DIRECTORY_32,
    ),
    paging("no PSE", turns_paging_on(ROOT), "PDE 0x.3 has PS set, .* but CR4.PSE is clear", DIRECTORY_32),
    paging(
        "no PAE",
        turns_paging_on(ROOT),
        "CR4.PAE is clear, so that the CPU reads entries of 4 bytes",
        [(ROOT, qword(TABLE | P)), (TABLE, qword(LARGE))],
    ),
    paging(
        "no LME",
        turns_paging_on(ROOT, CR4.PAE),
        "long mode was not enabled before paging: EFER.LME is clear",
        [(ROOT, qword(TABLE | P)), (TABLE, qword(PART | P | RW)), (PART, qword(LARGE))],
    ),
    paging(
        "a level too few",
        loads_cr3(places.PDPT),
        "CR3 0x10b000 leads to a page-directory-pointer table, where the CPU reads a PML4",
        bits=64,
    ),
    paging(
        "LME without PAE",
        turns_paging_on(ROOT, lme=True),
        "EFER.LME is set, and long mode needs CR4.PAE, which is clear",
        place="reason",
    ),
    paging(
        "paging without protected mode",
        sets(operands.CR0, CR0.PG, CR0.PE),
        "for CR0: PG, paging, needs PE, protected mode",
    ),
    Broken(
        "stack NX without NXE",
        kernel(patches=[page(places.STACK - 0x1000, (places.STACK - 0x1000) | P | RW | NX)]),
        "has bit 63 .NX. set while EFER.NXE is clear",
    ),
)

MODES = (
    Broken(
        "no L in CS",
        raw(WIDE_CODE, 32),
        "the code looks like 64-bit code, and long mode is not active: paging is off",
        "reason",
    ),
    Broken("no SCE", early(lambda code: code.syscall(), prepare=efer(0, EFER.SCE)), "syscall needs EFER.SCE", "reason"),
    Broken(
        "no far jump",
        real_lidt(0, 0x3FF, lambda code: (code.mov(EAX, CR0.PE | CR0.ET), code.mov(operands.CR0, EAX), code.ud2())),
        "CR0.PE was set without a far jump: CS 0x0",
        "reason",
    ),
    Broken("MOV to CS", raw(b"\x8e\xc8"), "mov to CS always raises #UD", "reason"),
    Broken("no OSXSAVE", raw(b"\x0f\x01\xd1"), "xsetbv needs CR4.OSXSAVE, which is clear", "reason"),
    Broken("LOCK", raw(b"\xf0\x01\xd8"), "may not have its LOCK prefix", "reason"),
)

FIRST_FAULTS = (
    Broken(
        "null call",
        early(lambda code: (code.mov(RAX, 0), code.call(RAX)), unmapped={0}),
        "fetch from 0x0, a null pointer .*; it was called at 0x10",
        "reason",
    ),
    Broken("GS of nobody", raw(b"\x65\x48\x8b\x04\x25\x10\0\0\0", unmapped={0}), "the base of GS is 0x0", "reason"),
    Broken(
        "error code left", kernel(raises=keeps_the_error_code), "the error code, 0x0, is still on the stack", "reason"
    ),
    Broken("nested task", early(flags_set(RFLAGS.NT)), "RFLAGS.NT, nested task, is set", "reason"),
    Broken(
        "narrow IRET",
        raw(b"\x6a\x10\x68\0\x20\x11\0\x6a\x02\x6a\x08\x68\0\x10\x10\0\xcf"),
        "iretd pops values of 32 bits, and the frame has 64",
        "reason",
    ),
    Broken("far return", raw(b"\x6a\x10\x6a\0\x48\xcb"), "retf pops CS 0x10, which is a data segment", "reason"),
    Broken("zeros", early(runs_zeros, unmapped={0}), "the code at RIP is zeros", "reason"),
    Broken("EFER", early(wrmsr(msr.EFER, 0)), "to EFER .*: LME cannot change while paging is on", "reason"),
    Broken(
        "paging off",
        kernel(raises=sets(operands.CR0, 0, CR0.PG), loads_idt=False),
        "for CR0: paging cannot be turned off in 64-bit code",
        "reason",
    ),
    Broken(
        "CR4",
        kernel(raises=sets(operands.CR4, 1 << 15), loads_idt=False),
        "for CR4: bit 15 is reserved",
        "reason",
    ),
    Broken("direction", raw(b"\xfd\xbf\0\x10\0\0\xb9\x04\0\0\0\xf3\xab", unmapped={0}), "RFLAGS.DF is set", "reason"),
    Broken(
        "accessed bit",
        kernel(raises=loads_unmarked_descriptor, loads_idt=False, patches=[(GDT + SPARE, qword(NO_ACCESS))]),
        "the CPU sets the accessed bit of descriptor 0x48",
        "reason",
    ),
    Broken(
        "SMEP",
        kernel(raises=jumps_to_user, loads_idt=False),
        "which SMEP does not let the supervisor",
        "reason",
        cpu="max",
    ),
    Broken(
        "stack in the page tables",
        kernel(raises=lambda k: (k.code.mov(RSP, places.DIRECTORY + 0x800), undefined(k)), loads_idt=False),
        "the stack, at 0x10c800, is inside the page tables: 0x10c000",
        "reason",
    ),
    Broken(
        "stack in the IDT",
        kernel(
            raises=lambda k: (k.code.mov(RSP, places.IDT + 0x100), undefined(k)), gates={Vector.XM: Gate(places.CODE)}
        ),
        "the stack, at 0x109100, is inside the IDT",
        "reason",
    ),
    Broken(
        "far jump to data",
        raw(b"\xea\0\0\0\0\x10\0", 32),
        "jmp far uses the selector 0x10, which is a data segment",
        "reason",
    ),
)

KINDS = (*PAGING, *MODES, *FIRST_FAULTS)
