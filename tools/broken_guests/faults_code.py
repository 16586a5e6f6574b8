"""Faults in one instruction: an operand, a register, a bit that it needs, an instruction that is not allowed."""

from trapline.arch import msr
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, EAX, EBX, ECX, EDX, RAX, Mem

from . import places
from .handlers import HALTS
from .kernel import FLAT, LONG, MODES, NARROW, PAE, PROTECTED, REAL, WIDE, Kernel
from .planted import Planted, fault

UD, GP, PF, SS_, NP = Vector.UD, Vector.GP, Vector.PF, Vector.SS, Vector.NP
_HIGH = 1 << 47
"""The first address that is not canonical."""


@fault("an instruction that is none", MODES, user=None)
def _undefined(k: Kernel) -> Planted:
    data, told = k.rng.choice((
        (b"\x0f\x0b", "ud2 always raises #UD"), (b"\x0f\xb9\xc0", "ud1 always raises #UD"),
        (b"\xf0\x01\xd8", "may not have its LOCK prefix"), (b"\x8e\xc8", "mov to CS always raises #UD"),
        (b"\xff\xff", "not a valid instruction"), (b"\x0f\x04", "not a valid instruction"),
    ))  # fmt: skip
    if k.broken:
        k.faults.raw(data)
    return Planted((UD,), (told,))


@fault("divide", MODES, user=None)
def _divide(k: Kernel) -> Planted:
    divisor, high = k.rng.choice(((0, 0), (0, 5), (3, 7), (1, 1)))
    signed = k.rng.random() < 0.5
    for register, value in ((EAX, 1), (EDX, high if k.broken else 0), (ECX, divisor if k.broken else 3)):
        k.faults.mov(register, value)
    k.faults.emit(lambda a: a.idiv(ECX) if signed else a.div(ECX))
    told = f"i?div by {divisor:#x}: the quotient is too large" if divisor else "i?div by zero"
    return Planted((Vector.DE,), (told,))


@fault("an address that is not canonical", (LONG,), user=None)
def _not_canonical(k: Kernel) -> Planted:
    where, shift = k.rng.randrange(_HIGH, (1 << 64) - _HIGH - 0x1000) & ~7, k.rng.choice((0, 8, -16, 0x100))
    good = places.DATA + 0x200
    on_stack = not k.is_user and k.rng.random() < 0.3
    base = operands.RBP if on_stack else k.bx
    k.faults.mov(base, (where if k.broken else good) - shift & (1 << 64) - 1)
    kind = k.rng.randrange(4)

    def fill(a: Assembler) -> None:
        if kind == 0:
            a.mov(EAX, Mem(base, shift))
        elif kind == 1:
            a.mov(Mem(base, shift), AL)
        elif kind == 2:
            a.cmp(Mem(base, shift, size=32), 5)
        else:
            a.inc(Mem(base, shift, size=64))

    k.faults.emit(fill)
    vectors = (SS_, GP) if on_stack else (GP,)  # QEMU and Unicorn raise #GP for either
    return Planted(vectors, (rf"(mov|cmp|inc) accesses {where:#x}, which is not a canonical",))


@fault("a jump to an address that is not canonical", (LONG,), user=None)
def _stray(k: Kernel) -> Planted:
    where = k.rng.randrange(_HIGH, (1 << 64) - _HIGH)
    how = k.rng.randrange(3)
    if k.broken:
        k.faults.mov(RAX, where)

        def fill(a: Assembler) -> None:
            if how == 0:
                a.call(RAX)
            elif how == 1:
                a.jmp(RAX)
            else:
                a.push(RAX)
                a.ret()

        k.faults.emit(fill)
    right = (rf"(call|jmp|ret) to {where:#x}, which is not", rf"execution went to {where:#x}, which is")
    return Planted((GP,), right, ("it was called at", "that address.* as (a return leaves it|for a jump through RAX)"))


@fault("an overflow or a bound", (FLAT, NARROW, PAE), user=None)
def _bound(k: Kernel) -> Planted:
    """INTO after an addition that overflows, BOUND with an index above the bounds (zeros)."""
    vector, data = k.rng.choice(((Vector.OF, b"\xb0\x7f\x04\x01\xce"), (Vector.BR, b"\xb8\x05\0\0\0\x62\x03")))
    k.gates[vector] |= 3 << 45
    k.faults.mov(EBX, k.offset(places.DATA + 0x80))
    if k.broken:
        k.faults.raw(data)
    told = "bound: the index 5 is not between 0 and 0" if vector == Vector.BR else "into, and RFLAGS.OF is set"
    return Planted((vector,), (told,))


@fault("a privileged instruction at CPL 3", WIDE, user=True)
def _privileged(k: Kernel) -> Planted:
    name, data = k.rng.choice((
        ("hlt", b"\xf4"), ("wrmsr", b"\x0f\x30"), ("rdmsr", b"\x0f\x32"), ("mov", b"\x0f\x22\xc0"),
        ("mov", b"\x0f\x20\xd8"), ("invd", b"\x0f\x08"), ("clts", b"\x0f\x06"), ("lgdt", b"\x0f\x01\x13"),
    ))  # fmt: skip
    if k.broken:
        k.faults.mov(k.bx, places.DATA)
        k.faults.raw(data)
    return Planted((GP,), (f"{name} is a privileged instruction, and the CPL is 3",))


@fault("interrupts or a port at CPL 3", WIDE, user=True)
def _io(k: Kernel) -> Planted:
    name, data = k.rng.choice((("cli", b"\xfa"), ("sti", b"\xfb"), ("in", b"\xe4\x60"), ("out", b"\xe6\x80")))
    if k.broken:
        k.faults.raw(data)
    return Planted((GP,), (f"{name} at CPL 3: RFLAGS.IOPL is 0", f"{name} is a privileged instruction, and the CPL"))


@fault("a control register", WIDE)
def _control(k: Kernel) -> Planted:
    rows = [("CR0", operands.CR0, k.cr0 & ~CR0.PE | CR0.PG, "PG, paging, needs PE")]
    rows.append(("CR0", operands.CR0, k.cr0 & ~CR0.CD | CR0.NW, "NW may not be set while CD is clear"))
    bit = k.rng.choice((15, 19, 25, 26, 27, 28, 29, 30))
    rows.append(("CR4", operands.CR4, k.cr4 | 1 << bit, f"bit {bit} is reserved"))
    if k.long:
        rows.append(("CR0", operands.CR0, k.cr0 & ~CR0.PG, "paging cannot be turned off in 64-bit code"))
        rows.append(("CR0", operands.CR0, k.cr0 | 1 << 40, "bits 63:32 are reserved"))
        rows.append(("CR4", operands.CR4, k.cr4 & ~CR4.PAE, "PAE cannot be cleared in long mode"))
        rows.append(("CR3", operands.CR3, 1 << 60 | places.ROOT, "a physical address has"))
    name, register, value, told = k.rng.choice(rows)
    if k.broken:
        k.faults.mov(k.ax, value)
        k.faults.emit(lambda a: a.mov(register, k.ax))
    right = rf"the CPU rejects the value {value:#x} for {name}: .*{told}"
    if value & (CR0.PE | CR0.PG) == CR0.PG and name == "CR0":  # QEMU takes it, and fetches through page tables
        return Planted((GP, PF), (right, "CR0.PG, paging, is set without CR0.PE"), ("fetch from 0x", "read of 0x"))
    return Planted((GP,), (right, "a MOV to CR4 that clears PAE in long mode"))  # the latter as a warning, of QEMU


@fault("a model-specific register", WIDE)
def _msr(k: Kernel) -> Planted:
    rows = [
        (msr.EFER, k.efer | 1 << 30 | (EFER.LMA if k.long else 0), "bit 30 is reserved"),
        (msr.PAT, 0x0007_0406_0007_0402, "0x2 is not a memory type"),
        (0x1234_5678, 1, ""),
    ]
    if k.long:
        rows.append((msr.EFER, EFER.NXE | EFER.SCE | EFER.LMA, "LME cannot change while paging is on"))
        rows.append((msr.LSTAR, 1 << 50, "it is not a canonical address"))
        rows.append((msr.KERNEL_GS_BASE, 1 << 62, "it is not a canonical address"))
    number, value, told = k.rng.choice(rows)
    if k.broken:
        for register, part in ((ECX, number), (EAX, value & 0xFFFF_FFFF), (EDX, value >> 32)):
            k.faults.mov(register, part)
        k.faults.emit(lambda a: a.wrmsr())
    return Planted((GP,), (rf"the CPU rejects wrmsr of {value:#x} to .*{number:#x}.*{told}",))


@fault("SSE that is not enabled", PROTECTED, user=None)
def _sse(k: Kernel) -> Planted:
    bit = k.rng.choice(("OSFXSR", "EM", "TS"))
    vector, told = {
        "OSFXSR": (UD, "is an SSE instruction, and CR4.OSFXSR is clear"),
        "EM": (UD, "is an SSE instruction, and CR0.EM is set"),
        "TS": (Vector.NM, "uses FPU or SSE state, and CR0.TS is set"),
    }[bit]
    if k.broken:
        if bit == "OSFXSR":
            k.code.set(operands.CR4, k.cr4 & ~CR4.OSFXSR)
        else:
            k.code.set(operands.CR0, k.cr0 | getattr(CR0, bit))
    k.faults.raw(k.rng.choice((b"\x0f\x57\xc0", b"\x0f\x28\xc8", b"\x66\x0f\xef\xc9")))
    return Planted((vector,), (told,))


@fault("AVX or XSETBV without OSXSAVE", WIDE)
def _avx(k: Kernel) -> Planted:
    data = k.rng.choice((b"\xc5\xf8\x28\xc1", b"\xc5\xf4\x57\xc9", b"\x0f\x01\xd1"))
    if k.broken:
        for register in (ECX, EDX):
            k.faults.mov(register, 0)
        k.faults.mov(EAX, 1)
        k.faults.raw(data)
    told = r"(vmovaps|vxorps|xsetbv) (is an AVX instruction, and CR4.OSXSAVE is clear|needs CR4.OSXSAVE)"
    return Planted((UD,), (told,), ("which the guest's CPU lacks", "QEMU has"))


@fault("SYSCALL without SCE", (LONG,))
def _syscall(k: Kernel) -> Planted:
    k.efer &= ~EFER.SCE
    if k.broken:
        k.faults.emit(lambda a: a.syscall())
    return Planted((UD,), ("syscall needs EFER.SCE, which is clear",))


@fault("an instruction of protected mode in real mode", (REAL,))
def _real(k: Kernel) -> Planted:
    name, data = k.rng.choice((("ltr", b"\x0f\x00\xd8"), ("lldt", b"\x0f\x00\xd0"), ("sldt", b"\x0f\x00\xc0")))
    if k.broken:
        k.faults.raw(data)
    return Planted((UD,), (f"{name} is not an instruction of real",))


@fault("a breakpoint that comes again", WIDE, styles=("returns", HALTS))
def _breakpoint(k: Kernel) -> Planted:
    if k.broken:
        size = 10 if k.long else 5  # of the MOV, by itself
        there = k.faults.at + 2 * (size + 3)
        for number, value in ((0, there), (7, 2)):
            k.faults.raw((b"\x48\xb8" if k.long else b"\xb8") + value.to_bytes(k.bits // 8, "little"))
            k.faults.raw(bytes((0x0F, 0x23, 0xC0 | number << 3)))  # mov to DR0, DR7
    k.faults.raw(b"\x90\x90")
    return Planted((Vector.DB,), ("RFLAGS.RF clear, so that the execution breakpoint of DR0", "breakpoint 0", "DR0"))


@fault("single steps", MODES, styles=(HALTS, "calls", "exits", "faults", "loops"))
def _steps(k: Kernel) -> Planted:
    if k.broken:

        def fill(a: Assembler) -> None:
            {16: a.pushf, 32: a.pushfd, 64: a.pushfq}[k.bits]()
            a.pop(k.ax)
            a.or_(k.ax, RFLAGS.TF)
            a.push(k.ax)
            {16: a.popf, 32: a.popfd, 64: a.popfq}[k.bits]()
            a.nop()
            a.nop()

        k.faults.emit(fill)
    return Planted((Vector.DB,), ("[Ss]ingle.step|\\bBS\\b",))


@fault("zeros are executed", WIDE)
def _zeros(k: Kernel) -> Planted:
    """Without paging they end in an UD2, and the zeros are not told."""
    start = places.ZEROS + k.rng.randrange(0x100, 0xE00)
    k.put(places.TARGET, b"\x90" * 16 + b"\x0f\x0b")  # wherever the last instruction of zeros ends
    if k.broken:
        k.faults.mov(k.ax, 0x7000_0000 if k.long else 0xFFFF_F000 if k.cr0 & CR0.PG else 0)
        k.faults.mov(k.bx, k.offset(start))
        k.faults.emit(lambda a: a.jmp(k.bx))
    return Planted(
        (Vector.PF, UD),
        ("the code at RIP is zeros|execution ran through zeros",),
        (r"(read of|write to) 0x[0-9a-f]+ \(not mapped", "ud2 always raises"),
    )
