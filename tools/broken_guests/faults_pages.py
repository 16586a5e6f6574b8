"""Faults in one entry of a page table, at any level, and in an address that leads to no page."""

from typing import Final

from trapline.arch.paging import NX, PS, RW, US, P
from trapline.arch.registers import EFER
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, EAX, Mem

from .kernel import LONG, PAE, PAGED, Kernel
from .paging import Entry, Window
from .planted import Planted, fault

PF: Final = (Vector.PF,)
_WRITTEN: Final = r"write to 0x[0-9a-f]+ \(not mapped"
READ, WRITE, FETCH = "read of", "(write to|read of)", "fetch from"
"""What is told of an access. A write may read first: QEMU and Unicorn translate it as two accesses then."""


def access(k: Kernel, gva: int, kind: str) -> int:
    """Emit an access to a page, and return its address; the fetch is a call or a jump."""
    rng = k.rng
    at = gva + (0 if kind == FETCH else rng.randrange(0, 0xFF0) & ~3)
    shift = rng.choice((0, 0, 4, -8, 0x40)) if kind != FETCH else 0
    k.faults.mov(k.bx, at - shift & (1 << k.bits) - 1)
    which = rng.randrange(3)

    def fill(a: Assembler) -> None:
        if kind == FETCH:
            a.call(k.bx)
        elif kind == READ:
            (a.mov, a.cmp, a.add)[which](AL, Mem(k.bx, shift))
        else:
            (a.mov, a.xor, a.or_)[which](Mem(k.bx, shift), EAX)

    k.faults.emit(fill)
    return at


def window(k: Kernel) -> Window:
    """Add a window to a guest."""
    made = Window(k, user=k.is_user)
    k.windows.append(made)
    return made


def change(k: Kernel, made: Window, entry: Entry, *, sets: int = 0, clears: int = 0) -> int:
    """Change an entry of a broken guest; return its value."""
    value = made.values[entry.gpa] & ~clears | sets
    if k.broken:
        made.values[entry.gpa] = value
    return value


@fault("an entry that is not present", PAGED, user=None)
def _absent(k: Kernel) -> Planted:
    made, kind = window(k), k.rng.choice((READ, WRITE, FETCH))
    entry = k.rng.choice(made.entries)
    clears = P if k.rng.random() < 0.5 else (1 << 64) - 1
    value = change(k, made, entry, clears=clears)
    at = access(k, made.gva, kind)
    return Planted(PF, (rf"{kind} {at:#x} \(not mapped: {entry.name} is {value:#x}\)",), ("it was called at",))


@fault("an entry that is read-only", PAGED, user=None)
def _read_only(k: Kernel) -> Planted:
    made = window(k)
    entry = k.rng.choice([each for each in made.entries if each.level < 3 or k.long])
    change(k, made, entry, clears=RW)
    at = access(k, made.gva, WRITE)
    return Planted(PF, (rf"write to {at:#x} \(not writable: {entry.name} R/W=0\)",))


@fault("an entry of the supervisor", PAGED, user=True)
def _supervisor(k: Kernel) -> Planted:
    made, kind = window(k), k.rng.choice((READ, WRITE, FETCH))
    entry = k.rng.choice([each for each in made.entries if each.level < 3 or k.long])
    change(k, made, entry, clears=US)
    at = access(k, made.gva, kind)
    return Planted(PF, (rf"{kind} {at:#x} \(a supervisor page: {entry.name} U/S=0\)",), ("it was called at",))


@fault("an entry that is not executable", (PAE, LONG), user=None)
def _no_execute(k: Kernel) -> Planted:
    made = window(k)
    entry = k.rng.choice([each for each in made.entries if each.level < 3 or k.long])
    change(k, made, entry, sets=NX)
    at = access(k, made.gva, FETCH)
    return Planted(PF, (rf"fetch from {at:#x} \(not executable: {entry.name} NX=1\)",), ("it was called at",))


@fault("NX without NXE", (PAE, LONG), user=None)
def _no_nxe(k: Kernel) -> Planted:
    made, kind = window(k), k.rng.choice((READ, WRITE))
    entry = k.rng.choice([each for each in made.entries if each.level < 3 or k.long])
    k.efer &= ~EFER.NXE
    change(k, made, entry, sets=NX)
    at = access(k, made.gva, kind)
    return Planted(PF, (rf"{kind} {at:#x} \(mapped with reserved bits: {entry.name} .* NX, while EFER.NXE is clear",))


@fault("reserved bits", (PAE, LONG), user=None)
def _reserved(k: Kernel) -> Planted:
    made, kind = window(k), k.rng.choice((READ, WRITE, FETCH))
    entry = k.rng.choice([each for each in made.entries if each.level < 3 or k.long])
    bits = PS if entry.level == 4 else 1 << 51
    change(k, made, entry, sets=bits)
    at = access(k, made.gva, kind)
    told = rf"{kind} {at:#x} \(mapped with reserved bits: {entry.name} 0x[0-9a-f]+ has {bits:#x} set"
    return Planted(PF, (told,), ("it was called at",))


@fault("a pointer that is wild or null", PAGED, user=None)
def _wild(k: Kernel) -> Planted:
    kind = k.rng.choice((READ, WRITE, FETCH))
    made = window(k)
    wild = 0x4000_0000 | k.rng.randrange(1 << 12) << 12
    at = access(k, wild if k.broken else made.gva, kind)
    return Planted(PF, (rf"{kind} {at:#x} \(not mapped: \w+ is 0x0\)",), ("it was called at",))


@fault("a stack that overflows", (LONG,))
def _overflow(k: Kernel) -> Planted:
    k.gates[Vector.PF] |= 1 << 32  # its handler has a stack of its own
    if k.broken:

        def fill(a: Assembler) -> None:
            a.label("again")
            a.push(k.ax)
            a.call("again")

        k.faults.emit(fill)
    return Planted(PF, (r"the stack overflowed: the stack pointer is",), (_WRITTEN,))


@fault("GS that is not set", (LONG,))
def _gs(k: Kernel) -> Planted:
    at = 0x5000_0000 + (k.rng.randrange(0x400) & ~7)
    if k.broken:
        k.faults.raw(b"\x65\x48\x8b\x04\x25" + at.to_bytes(4, "little"))  # mov rax, gs:[at]
    right = r"accessed through GS in kernel code, and the base of GS is 0x0"
    return Planted(PF, (right,), (rf"read of {at:#x} \(not mapped",))


@fault("the direction flag", PAGED)
def _direction(k: Kernel) -> Planted:
    made = window(k)
    if k.broken:
        k.faults.emit(lambda a: a.std())
    rdi, rcx = (operands.RDI, operands.RCX) if k.long else (operands.EDI, operands.ECX)
    k.faults.mov(rdi, made.gva + 8)
    k.faults.mov(rcx, 0x40)
    k.faults.raw(b"\xf3\xaa")
    k.faults.emit(lambda a: a.cld())
    return Planted(PF, (r"RFLAGS.DF is set, so that .*stos\w* runs downwards",), (_WRITTEN,))
