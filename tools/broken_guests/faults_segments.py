"""Faults in segments: selectors, descriptors and the table that has them."""

from trapline.arch.encode import pseudo_descriptor
from trapline.arch.vectors import Vector
from trapline.asm.operands import AX, DS, EAX, SS, Mem

from . import places
from .kernel import PROTECTED, WIDE, Kernel
from .planted import Planted, fault

GP, SS_, NP = Vector.GP, Vector.SS, Vector.NP


@fault("a segment register", PROTECTED, user=None)
def _segment(k: Kernel) -> Planted:
    rpl = 3 if k.is_user else 0
    rows = [
        (places.GDT_LIMIT + 1 + 8 * k.rng.randrange(0x100), GP, "beyond the end of the GDT"),
        (places.ABSENT, NP, "a data segment of DPL 0 that is not present"),
        (places.CODE_ONLY, GP, "code of DPL 0"),
        (places.SYSTEM, GP, "an LDT"),
        (4 | 8 * k.rng.randrange(1, 20), GP, "in the LDT, and none is loaded"),
    ]
    if k.is_user:
        rows[1] = (places.DATA_0, GP, "a data segment of DPL 0")
    selector, vector, told = k.rng.choice(rows)
    register, name = (SS, "SS") if not k.is_user and k.rng.random() < 0.3 else (DS, "DS")
    if name == "SS" and vector == NP:
        vector = SS_
    good = places.DATA_3 | 3 if k.is_user else places.DATA_0
    k.faults.mov(EAX, selector | rpl if k.broken else good)
    k.faults.emit(lambda a: a.mov(register, AX))
    return Planted((vector,), (rf"mov uses the selector {selector & ~3:#x}, which is.* {told}",))


@fault("a GDT that is too short", WIDE)
def _short_gdt(k: Kernel) -> Planted:
    """Loaded again with a limit that includes less than before."""
    limit = k.rng.choice((0xF, 0x10, 0x16))
    k.put(places.DATA + 0x40, pseudo_descriptor(k.linear(places.GDT), limit, bits=64 if k.long else 32))
    if k.broken:
        k.faults.mov(k.bx, k.offset(places.DATA + 0x40))
        k.faults.emit(lambda a: a.lgdt(Mem(k.bx)))
    k.faults.mov(EAX, places.DATA_0)
    k.faults.emit(lambda a: a.mov(DS, AX))
    told = rf"(mov uses the selector|iretq pops SS) 0x10, which is beyond the end of the GDT \(limit {limit:#x}"
    return Planted((GP,), (told,))


@fault("a far jump", WIDE)
def _far_jump(k: Kernel) -> Planted:
    selector, vector, told = k.rng.choice((
        (places.NULL, GP, ""), (places.DATA_0, GP, "a data segment"), (places.ABSENT, GP, "a data segment"),
        (0x800, GP, "beyond the end"), (places.SYSTEM, GP, "an LDT"), (places.CODE_3, GP, "code of DPL 3"),
    ))  # fmt: skip
    if k.long:  # a far return: the jump with a pointer is not an instruction there
        k.faults.emit(lambda a: a.push(selector if k.broken else places.CODE_0))
        k.faults.raw(b"\x48\x8d\x05\x03\0\0\0\x50\x48\xcb")  # lea rax, [rip + 3]; push rax; retfq
        name = "retf"
    else:
        there = k.faults.at + 7
        k.faults.emit(lambda a: a.far_jump(selector if k.broken else places.CODE_0, there))
        name = "jmp far"
    null = rf"{name} pops CS 0x0, which is null" if k.long else "0x0, which is null"
    right = (null,) if not selector else (rf"{name} (uses the selector|pops CS) {selector:#x}, which is.*{told}",)
    return Planted((vector,), right)


@fault("a task register", WIDE)
def _task(k: Kernel) -> Planted:
    selector, vector, told = k.rng.choice((
        (places.DATA_0, GP, "a data segment"), (places.SYSTEM, GP, "an LDT"), (0x400, GP, "beyond the end"),
        (places.TASK, GP, "a busy TSS"), (places.CODE_0, GP, "code"),
    ))  # fmt: skip
    if k.broken:
        k.faults.mov(EAX, selector)
        k.faults.emit(lambda a: a.ltr(AX))
    return Planted((vector,), (rf"ltr uses the selector {selector:#x}, which is.*{told}",))
