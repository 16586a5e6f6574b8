"""Faults in interrupts: a controller that is not remapped, a missing end of interrupt, a wait with interrupts off."""

from typing import Final

from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, Mem

from . import places
from .handlers import HALTS, TIMER, WAITS, WITHOUT_END
from .kernel import MODES, PROTECTED, Kernel
from .planted import Planted, fault

_TICKS: Final = 3


def starts_timer(k: Kernel, base: int) -> None:
    """Emit code that sets up the interrupt controllers, with IRQ 0 at a vector, and the timer."""
    rows = [
        (0x20, 0x11), (0xA0, 0x11), (0x21, base), (0xA1, 0x28), (0x21, 4), (0xA1, 2), (0x21, 1), (0xA1, 1),
        (0x21, 0xFE), (0xA1, 0xFF), (0x43, 0x34), (0x40, 0), (0x40, 0x10),
    ]  # fmt: skip

    def fill(a: Assembler) -> None:
        for port, value in rows:
            a.mov(AL, value)
            a.out(port, AL)

    k.code.emit(fill)


def waits(k: Kernel, *, on: bool = True) -> None:
    """Emit code that waits for some ticks in HLT; `on`: with interrupts on."""

    def fill(a: Assembler) -> None:
        a.mov(k.bx, k.offset(places.DATA))
        a.label("wait")
        if on:
            a.sti()
        a.hlt()
        a.cmp(Mem(k.bx, size=16), _TICKS)
        a.jb("wait")
        a.cli()

    k.code.emit(fill)


@fault("a controller that is not remapped", PROTECTED, styles=(HALTS, "calls", "exits", "loops"))
def _not_remapped(k: Kernel) -> Planted:
    starts_timer(k, 8 if k.broken else TIMER)
    waits(k)
    return Planted((), ("IRQ 0 arrives at vector 8, that of #DF: it is an interrupt and not an exception",))


@fault("an end of interrupt left out", MODES, styles=(WAITS,))
def _no_end(k: Kernel) -> Planted:
    if k.broken:
        k.gates[TIMER] = k.gates[WITHOUT_END]
    starts_timer(k, TIMER)
    waits(k)
    return Planted((), ("IRQ 0 is in service",))


@fault("a wait with interrupts off", MODES, styles=(HALTS,))
def _off(k: Kernel) -> Planted:
    starts_timer(k, TIMER)
    waits(k, on=not k.broken)
    return Planted((), ("interrupts off, in HLT", "RFLAGS.IF is clear: the HLT waits for ever"))


@fault("the timer's handler", PROTECTED, styles=(HALTS, "calls", "exits"))
def _handler(k: Kernel) -> Planted:
    """The gate of IRQ 0 is not present."""
    if k.broken:
        k.gates[TIMER] &= ~(1 << 47)
    starts_timer(k, TIMER)
    waits(k)
    return Planted((Vector.NP,), (r"IDT entry 32 .*is not present: its P bit is clear",), ("interrupt 0x20",))
