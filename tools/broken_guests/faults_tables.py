"""Faults in what delivers an exception, which is raised on purpose, and in what returns: gates, TSS, IRET frames."""

from trapline.arch.descriptors import ATTRIBUTES_LOW, GATE_PRESENT
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import ECX

from . import places
from .handlers import FAULTS, STYLES
from .kernel import LONG, PROTECTED, REAL, WIDE, Kernel
from .planted import Planted, fault

GP, NP, TS, DF, UD = Vector.GP, Vector.NP, Vector.TS, Vector.DF, Vector.UD
_HIGH = 1 << 50
_OTHERS = [style for style in STYLES if style != FAULTS]
"""Where #UD cannot be delivered, a handler that raises it does so for ever."""


def raise_one(k: Kernel) -> tuple[int, str]:
    """Emit an instruction that raises an exception; return its vector and what is told of it."""
    vector, told = k.rng.choice(((UD, "ud2 always raises #UD"), (Vector.DE, "div by zero")))
    if vector == UD:
        k.faults.emit(lambda a: a.ud2())
    else:
        k.faults.mov(ECX, 0)
        k.faults.emit(lambda a: a.div(ECX))
    return vector, told


def _name(vector: int) -> str:
    return rf"IDT entry {vector} \(#{Vector(vector).name}\)"


@fault("a gate", PROTECTED, user=None, styles=_OTHERS)
def _gate(k: Kernel) -> Planted:
    """The delivery raises another exception, whose handler is good."""
    if not k.broken:
        return Planted((), ())
    vector, reason = raise_one(k)
    gate, name = k.gates[vector], _name(vector)
    selector = k.rng.choice((places.NULL, places.DATA_0, 0x800, places.SYSTEM, places.CODE_3, places.ABSENT))
    told_of = {
        places.NULL: "null", places.DATA_0: "a data segment", 0x800: "beyond the end of the GDT",
        places.SYSTEM: "an LDT", places.CODE_3: "code of DPL 3", places.ABSENT: "a data segment",
    }  # fmt: skip
    if k.is_user and selector == places.CODE_3:
        selector = places.NULL
    kind = k.rng.choice((0, 2, 4, 9, 0xB, 0xC, 5))
    rows = [
        (gate & ~GATE_PRESENT, NP, f"{name} is not present: its P bit is clear"),
        (gate & ~(0x1F << ATTRIBUTES_LOW) | kind << ATTRIBUTES_LOW, GP, f"{name} is .*, not an interrupt or trap gate"),
        (0, GP, rf"{name} is empty \(all zero\)"),
        (gate & ~(0xFFFF << 16) | selector << 16, GP, f"the selector {selector:#x} in {name} is .*{told_of[selector]}"),
    ]
    if not k.long:
        rows[1] = (gate & ~(0x1F << ATTRIBUTES_LOW) | 0xC << ATTRIBUTES_LOW, *rows[1][1:])
    else:
        rows.append((gate & (1 << 64) - 1 | _HIGH >> 32 << 64, GP, f"the handler in {name}"))
    broken, second, told = k.rng.choice(rows)
    k.gates[vector] = broken
    vectors = (second, DF) if vector == Vector.DE else (second,)  # two contributory exceptions (APM vol. 2, 8.2.9)
    fetched = "execution went to 0x[0-9a-f]+, which is not a canonical address"  # QEMU finds it there
    return Planted(vectors, (told,), (reason, fetched))


@fault("an IDT that is too short", (*PROTECTED, REAL))
def _short(k: Kernel) -> Planted:
    """The first INT n beyond the limit."""
    number = k.rng.randrange(0x90, 0x100)
    size = {REAL: 4, LONG: 16}.get(k.mode, 8)
    k.idt_limit = size * 0x82 - 1
    if k.broken:
        k.faults.emit(lambda a: a.int(number))
    told = f"IDTR.limit is .*, and vector {number:#x} is entry {number}"
    return Planted((GP,), (told,))


@fault("INT n through a gate", WIDE, user=None)
def _software(k: Kernel) -> Planted:
    number = k.rng.randrange(0x90, 0x100)
    empty = not k.is_user or k.rng.random() < 0.5
    if not empty:
        k.gates[number] = k.gate(k.offset(places.HANDLERS))
    if k.broken:
        k.faults.emit(lambda a: a.int(number))
    name = rf"IDT entry {number} \(vector {number:#x}\)"
    told = f"{name} is empty" if empty else f"a program at CPL 3 may not call {name}: the gate's DPL is 0"
    return Planted((GP,), (told,))


@fault("an IST stack", (LONG,), user=None, styles=_OTHERS)
def _ist(k: Kernel) -> Planted:
    if not k.broken:
        return Planted((), ())
    vector, reason = raise_one(k)
    value = k.rng.choice((0, 0x7000_0000, 1 << 49))
    k.interrupt_stacks.append(value)
    k.gates[vector] |= 2 << 32
    told = "IST2 in the TSS is " + ("zero" if not value else f"{value:#x}")
    return Planted((DF, Vector.SS, Vector.PF, GP), (told,), (reason,))


@fault("the stack of ring 0", (LONG,), user=True, styles=_OTHERS)
def _rsp0(k: Kernel) -> Planted:
    """#DF has a stack of its own."""
    if not k.broken:
        return Planted((), ())
    _, reason = raise_one(k)
    value = k.rng.choice((0x7000_0000, 0x7800_0000))
    k.stacks = [value]
    return Planted((DF, Vector.PF), (f"RSP0 in the TSS is {value:#x}, but a push there fails",), (reason,))


@fault("the stack pointer", (LONG,), styles=_OTHERS)
def _pointer(k: Kernel) -> Planted:
    value = k.rng.choice((0, 0x7000_0000, 1 << 50))
    value += k.rng.randrange(0x100) * 16 if value else 0
    if not k.broken:
        return Planted((), ())
    k.faults.mov(k.sp, value)
    _, reason = raise_one(k)
    return Planted((DF, Vector.PF, Vector.SS, GP), (rf"RSP is {value:#x}, which",), (reason,))


@fault("a frame of IRET", WIDE)
def _iret(k: Kernel) -> Planted:
    """Of the five values one is wrong."""
    selector, data = places.CODE_0, places.DATA_0
    there, stack = k.offset(places.CODE) + 0xFF0, k.offset(places.STACK)
    name, width = ("iretq", 8) if k.long else ("iretd", 4)
    rows = [
        ({"cs": 0}, f"{name} pops CS 0x0, which is null"), ({"cs": data}, f"{name} pops CS {data:#x}, which is a data"),
        ({"cs": 0x400}, f"{name} pops CS 0x400, which is beyond the end"),
        ({"cs": places.CODE_3}, f"{name} pops CS {places.CODE_3:#x}, which is .*code of DPL 3, but its RPL is 0"),
        ({"cs": places.ABSENT}, f"{name} pops CS {places.ABSENT:#x}, which is a data segment"),
        ({"code": 0x18}, f"the error code, 0x18, is still on the stack: the frame of {name} is {width} bytes"),
        ({"nt": 1}, "RFLAGS.NT, nested task, is set"),
        ({"cs": places.CODE_3 | 3, "ss": data}, f"{name} pops SS {data:#x}, which is a data segment of DPL 0"),
    ]  # fmt: skip
    if k.long:
        rows.append(({"rip": _HIGH}, rf"(iretq pops RIP|execution went to) {_HIGH:#x}, which is not a canonical"))
        rows.append(({"ss": places.CODE_0}, f"{name} pops SS {places.CODE_0:#x}, which is .*code"))
    wrong, told = k.rng.choice(rows)
    if not k.broken:
        wrong = {}
    flags = RFLAGS.ALWAYS_ONE
    frame = [wrong.get("ss", data), wrong.get("rsp", stack), flags, wrong.get("cs", selector), wrong.get("rip", there)]
    if not k.long and wrong.get("cs", 0) & 3 == 0:
        frame = frame[2:]
    if "code" in wrong:
        frame.append(wrong["code"])

    def fill(a: Assembler) -> None:
        for value in frame:
            a.mov(k.ax, value)
            a.push(k.ax)
        if "nt" in wrong:
            (a.pushfq if k.long else a.pushfd)()
            a.pop(k.ax)
            a.or_(k.ax, RFLAGS.NT)
            a.push(k.ax)
            (a.popfq if k.long else a.popfd)()
        (a.iretq if k.long else a.iretd)()

    k.faults.emit(fill)
    there -= k.offset(places.CODE)
    k.faults.raw(b"\x90" * (there - len(k.faults.data)))
    vectors = (TS, GP) if "nt" in wrong else (GP, NP)
    return Planted(vectors, (told,))
