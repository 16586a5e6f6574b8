"""Why the first exception was raised, on one instruction each."""

import random

import pytest

from tests.explain.machines import CODE, CODE_0, CODE_3, DATA_0, DATA_3, PDPT, STACK, Machine, fault, page_fault
from trapline.arch.events import Event, EventType
from trapline.arch.paging import PS, RW, A, D, P
from trapline.arch.registers import CR0, CR4, DR6, Gprs
from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.disassembler import instruction
from trapline.asm.operands import AX, CR3, DS, EAX, ECX, RAX, RBP, RBX, RDX, RSP, XMM0, Mem
from trapline.explain.explain import explain_exception
from trapline.explain.origin import reason

HIGH = 1 << 47
"""Not a canonical address."""
GP, UD, DE, NM, SS, NP, TS = (
    fault(vector, code)
    for vector, code in (
        (Vector.GP, 0), (Vector.UD, None), (Vector.DE, None), (Vector.NM, None), (Vector.SS, 0),
        (Vector.NP, 0x28), (Vector.TS, 0x28),
    )
)  # fmt: skip


def code(emit):
    assembler = Assembler(64)
    emit(assembler)
    return assembler.assemble(CODE)


def frame(rip=CODE, cs=CODE_0, rflags=2, rsp=STACK, ss=DATA_0):
    return rip, cs, rflags, rsp, ss


NO_RULE = None
LEGACY = {"efer": 0, "cr0": CR0.PE, "cr4": 0, "cs.attributes": 0xC9B, "ds.limit": 0xFFFF_FFFF, "ds.attributes": 0xC93}
EXCEPTIONS = [vector for vector in Vector if vector not in (Vector.DF, Vector.NMI)]
CHANGED = [*(name for name, _ in Gprs._fields_), "rsp", "rflags", "cr4", "dr6", "fs.base", "gs.base"]
ROWS = [
    (UD, b"\x0f\x0b", {}, "ud2 always raises #UD"),
    (UD, b"\x06", {}, "the bytes at RIP are not a valid instruction"),
    (UD, b"\x90", {}, NO_RULE),
    (UD, b"\x0f\x28\xc1", {"cr0": CR0.PE | CR0.PG | CR0.EM},
     "movaps is an SSE instruction, and CR0.EM is set: SSE is disabled"),
    (UD, b"\x0f\x28\xc1", {"cr4": CR4.PAE}, "movaps is an SSE instruction, and CR4.OSFXSR is clear: SSE is disabled"),
    (UD, b"\xc5\xf8\x28\xc1", {}, "vmovaps is an AVX instruction, and CR4.OSXSAVE is clear: AVX is disabled"),
    (NM, b"\xd9\xe8", {"cr0": CR0.PE | CR0.PG | CR0.TS}, "fld1 uses FPU or SSE state, and CR0.TS is set"),
    (NM, b"\xd9\xe8", {"cr0": CR0.PE | CR0.PG | CR0.EM}, "fld1 uses FPU or SSE state, and CR0.EM is set"),
    (DE, code(lambda c: c.div(ECX)), {}, "div by zero"),
    (DE, code(lambda c: c.div(ECX)), {"rcx": 0x1_0000_0002}, "div by 0x2: the quotient is too large"),
    (DE, code(lambda c: c.div(Mem(RBX, size=32))), {"rbx": 0x7000}, "div by zero"),
    (DE, b"\x41\xf6\xf7", {"r15": 0x1200}, "div by zero"),  # div r15b
    (DE, b"\x40\xf6\xf6", {"rsi": 0x1204, "rdx": 0}, "div by 0x4: the quotient is too large"),  # div sil
    (DE, b"\xf6\xf6", {"rsi": 0, "rdx": 0x1204}, "div by 0x12: the quotient is too large"),  # div dh
    (DE, b"\x90", {}, NO_RULE),
    (fault(Vector.OF), b"\xce", LEGACY, "into, and RFLAGS.OF is set"),
    (fault(Vector.BR), b"\x62\x03", {**LEGACY, "rax": 5, "rbx": 0x7000, "stored": (0x7000, 0xFFFF_FFFE)},
     "bound: the index 5 is not between -2 and 0"),
    (fault(Vector.BR), b"\x66\x62\x03", {**LEGACY, "rax": 0xFFFF, "rbx": 0x7000, "stored": (0x7000, 0x5_0000)},
     "bound: the index -1 is not between 0 and 5"),
    (fault(Vector.BR), b"\x90", {}, NO_RULE),
    (GP, code(lambda c: c.hlt()), {"cpl": 3}, "hlt is a privileged instruction, and the CPL is 3"),
    (GP, b"\x90", {"rip": HIGH}, f"execution went to {HIGH:#x}, which is not a canonical address"),
    (GP, code(lambda c: c.mov(EAX, Mem(RBX, 8))), {"rbx": HIGH},
     f"mov accesses {HIGH + 8:#x}, which is not a canonical address"),
    (GP, code(lambda c: c.mov(EAX, Mem(RBX, index=RDX, scale=4))), {"rbx": HIGH - 4, "rdx": 1},
     f"mov accesses {HIGH:#x}, which is not a canonical address"),
    (GP, b"\x64\x8b\x03", {"rbx": 1, "fs.base": HIGH}, f"mov accesses {HIGH + 1:#x}, which is not a canonical address"),
    (GP, code(lambda c: c.lea(RAX, Mem(RBX))), {"rbx": HIGH}, NO_RULE),
    (GP, code(lambda c: c.movaps(XMM0, Mem(RBX))), {"rbx": 0x7008},
     "movaps needs an address aligned to 16 bytes, and 0x7008 is not"),
    (GP, code(lambda c: c.movups(XMM0, Mem(RBX))), {"rbx": 0x7008}, NO_RULE),
    (GP, code(lambda c: c.movaps(XMM0, Mem(RBX))), {"rbx": 0x7010}, NO_RULE),
    (GP, b"\xff\xe0", {"rax": HIGH}, f"jmp to {HIGH:#x}, which is not a canonical address"),
    (GP, b"\xff\x13", {"rbx": 0x7000, "stored": (0x7000, HIGH)},
     f"call to {HIGH:#x}, which is not a canonical address"),
    (GP, code(lambda c: c.ret()), {"stored": (STACK, HIGH)}, f"ret to {HIGH:#x}, which is not a canonical address"),
    (GP, code(lambda c: c.wrmsr()), {"rcx": 0xC000_0080},
     "the CPU rejects wrmsr of 0x0 to EFER (0xc0000080): LME cannot change while paging is on (CR0.PG)"),
    (GP, code(lambda c: c.mov(CR3, RAX)), {"rax": 1 << 63},
     "the CPU rejects the value 0x8000000000000000 for CR3: a physical address has 40 bits"),
    (fault(Vector.GP, 0x1000), code(lambda c: c.mov(DS, AX)), {},
     "mov uses the selector 0x1000, which is beyond the end of the GDT (limit 0x27)"),
    (fault(Vector.GP, 0x33), code(lambda c: c.nop()), {}, NO_RULE),
    (NP, code(lambda c: c.mov(DS, AX)), {"gdtr.limit": 0x2F},
     "mov uses the selector 0x28, which is an empty entry of the GDT"),
    (TS, b"\x06", {}, NO_RULE),
    (SS, code(lambda c: c.mov(EAX, Mem(RBP, 8))), {"rbp": HIGH},
     f"mov accesses {HIGH + 8:#x}, which is not a canonical address"),
    (SS, code(lambda c: c.push(RAX)), {"rsp": HIGH},
     f"push uses the stack, and RSP is {HIGH:#x}, which is not a canonical address"),
    (SS, code(lambda c: c.mov(EAX, Mem(RSP))), {}, NO_RULE),
    (fault(Vector.SS, 0x20), code(lambda c: c.mov(DS, AX)), {},
     "mov uses the selector 0x20, which is a data segment of DPL 3"),
    (fault(Vector.DB), b"\x90", {"dr6": DR6.BS | DR6.BLD}, "single step"),
    (fault(Vector.BP), b"\xcc", {}, NO_RULE),
    (Event(0x80, EventType.SOFT), b"\xcd\x80", {}, NO_RULE),
    (Event(9, EventType.INTR), b"\x90", {},
     "IRQ 1 arrived at an exception vector: the interrupt controller was not remapped"),
    (Event(0x20, EventType.INTR), b"\x90", {}, NO_RULE),
]  # fmt: skip


def made(code, fields):
    fields = dict(fields)
    stored = fields.pop("stored", None)
    machine = Machine(code, **fields)
    if stored is not None:
        machine.put(*stored)
    return machine


def test_any_instruction_with_any_state_has_a_reason_or_none():
    chance = random.Random(12)
    for _ in range(1000):
        vector = chance.choice(EXCEPTIONS)
        state = {name: chance.getrandbits(chance.choice((4, 16, 64))) for name in CHANGED}
        bits = chance.choice((0x099B, 0x0C9B, 0x0A9B))
        machine = Machine(chance.randbytes(15), **state, **{"cs.attributes": bits, "cpl": chance.choice((0, 3))})
        evidence = machine.evidence(fault(vector, chance.getrandbits(16)), first_address=chance.getrandbits(48))
        found = explain_exception(evidence, disassemble=instruction).origin
        assert found is None or found.event.vector == vector


@pytest.mark.parametrize(("event", "code", "fields", "expected"), ROWS)
def test_the_reason_is_read_from_the_instruction(event, code, fields, expected):
    machine = made(code, fields)
    assert reason(machine.evidence(event), machine.attempt(event)) == expected


IRET = [
    (frame(), 0, NO_RULE),
    (frame(cs=CODE_3 | 3, ss=DATA_3 | 3), 0, NO_RULE),
    (frame(cs=0), 0, "iretq pops CS 0x0, which is null"),
    (frame(cs=DATA_0), 0, "iretq pops CS 0x10, which is a data segment of DPL 0"),
    (frame(cs=0x1000), 0, "iretq pops CS 0x1000, which is beyond the end of the GDT (limit 0x27)"),
    (frame(), 3, "iretq pops CS 0x8, whose RPL is below the CPL, 3"),
    (frame(cs=CODE_0 | 3), 0, "iretq pops CS 0xb, which is 64-bit code of DPL 0, but its RPL is 3"),
    (frame(rip=HIGH), 0, f"iretq pops RIP {HIGH:#x}, which is not a canonical address"),
    (frame(ss=0), 0, NO_RULE),
    (frame(cs=CODE_3 | 3, ss=0), 0, "iretq pops SS 0x0, which is null"),
    (frame(cs=CODE_3 | 3, ss=CODE_3 | 3), 0, "iretq pops SS 0x1b, which is 64-bit code of DPL 3, not writable data"),
    (frame(cs=CODE_3 | 3, ss=DATA_0), 0,
     "iretq pops SS 0x10, which is a data segment of DPL 0, but the new CPL is 3"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "cpl", "expected"), IRET)
def test_what_iret_pops(values, cpl, expected):
    machine = made(b"\x48\xcf", {"stored": (STACK, *values), "cpl": cpl})
    assert reason(machine.evidence(GP), machine.attempt(GP)) == expected


def test_a_frame_that_cannot_be_read():
    machine = made(b"\x48\xcf", {"rsp": 1 << 40})
    expected = "the frame that iretq pops, at RSP 0x10000000000, cannot be read"
    assert reason(machine.evidence(GP), machine.attempt(GP)) == expected


READ_ONLY = PS | P | A | D


@pytest.mark.parametrize(
    ("code", "address", "pdpe", "expected"),
    [
        (0, 1 << 40, None, "read of 0x10000000000 (not mapped: PML4E is 0x0)"),
        (2, 0x8, None, "write to 0x8, a null pointer"),
        (3, 0x7000, READ_ONLY, "write to 0x7000 (not writable: PDPE R/W=0)"),
        (5, 0x7000, READ_ONLY | RW, "read of 0x7000 (a supervisor page: PML4E and PDPE U/S=0)"),
        (0, CODE, None, f"fetch from {CODE:#x}"),
        (0x10, 1 << 40, None, "fetch from 0x10000000000 (not mapped: PML4E is 0x0)"),
        (0, None, None, "read of an address that was not recorded"),
    ],
)
def test_what_a_page_fault_accessed(code, address, pdpe, expected):
    machine = Machine()
    if pdpe is not None:
        machine.put(PDPT, pdpe)
    event = page_fault(code)
    assert reason(machine.evidence(event, first_address=address), machine.attempt(event)) == expected
