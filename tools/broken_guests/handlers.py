"""The handlers of a broken guest: of each exception, of the timer, and of the call that ends a program at CPL 3."""

from typing import Final

from trapline.arch.vectors import VECTORS, WITH_ERROR_CODE, Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, BX, DX, EAX, EBX, EDX, ESP, RAX, RBX, RSP, Mem
from trapline.devices.power import DEBUG_EXIT, RESET_CONTROL
from trapline.devices.uart import COM1

HALTS, CALLS, EXITS, RESETS, FAULTS, LOOPS, RETURNS = STYLES = (
    "halts", "calls", "exits", "resets", "faults", "loops", "returns",
)  # fmt: skip
"""What a handler does: print and halt, do so in functions that it calls, end the run, reset, raise #UD, loop, return.
"""
WAITS: Final = "waits"
"""No handler is left with an exception: the guest waits for an interrupt that does not come."""
ENDLESS: Final = (LOOPS, RETURNS, WAITS)
"""With these the guest does not end by itself."""
END_CALL: Final = 0x81
TIMER: Final = 0x20
WITHOUT_END: Final = 0x21
"""The vectors of the timer's handler, and of one that leaves out the end of interrupt."""
_REGISTERS: Final = {16: (AX, BX, ESP), 32: (EAX, EBX, ESP), 64: (RAX, RBX, RSP)}


def handlers(bits: int, address: int, style: str, ticks: int, *, real: bool) -> tuple[bytes, dict[int, int]]:
    """Return the code, and the address of each handler by its vector; the timer's counts at `ticks`.

    `real`: the frames of real mode, which have no error codes.
    """
    a = Assembler(bits)
    for row in VECTORS:
        a.label(f"{row.vector}")
        if row.vector == Vector.BP:
            _return(a, bits)
        elif style == RETURNS:
            if WITH_ERROR_CODE & row.bit and not real:
                a.add(_REGISTERS[bits][2], bits // 8)
            _return(a, bits)
        else:
            a.mov(AL, ord("A") + row.vector)
            a.jmp("halt" if style == FAULTS and row.vector == Vector.UD else "panic")
    _panic(a, bits, style)
    a.label(f"{END_CALL}")
    a.mov(AL, 0)
    a.out(DEBUG_EXIT, AL)
    a.cli()
    a.hlt()
    _timer(a, bits, ticks)
    found = a.labels(address)
    return a.assemble(address), {int(name): at for name, at in found.items() if name.isdecimal()}


def _panic(a: Assembler, bits: int, style: str) -> None:
    ax, bx, _ = _REGISTERS[bits]
    dx = DX if bits == 16 else EDX
    a.label("panic")
    if style == CALLS:
        a.call("dump")
    a.label("print")
    a.mov(dx, COM1)
    a.out(DX, AL)
    if style == CALLS:
        a.jmp("halt")
    elif style == EXITS:
        a.mov(AL, 1)
        a.out(DEBUG_EXIT, AL)
    elif style == RESETS:
        a.mov(dx, RESET_CONTROL)
        a.mov(AL, 6)
        a.out(DX, AL)
    elif style == FAULTS:
        a.ud2()
    elif style == LOOPS:
        a.label("loop")
        a.jmp("loop")
    a.label("halt")
    a.cli()
    a.hlt()
    a.jmp("halt")
    a.label("dump")
    a.push(ax)
    a.call("dump more")
    a.pop(ax)
    a.ret()
    a.label("dump more")
    a.push(bx)
    a.call("print")
    a.ret()


def _timer(a: Assembler, bits: int, ticks: int) -> None:
    """Count, and send the end of interrupt; the second one does not send it."""
    ax, bx, _ = _REGISTERS[bits]
    for vector, ends in ((TIMER, True), (WITHOUT_END, False)):
        a.label(f"{vector}")
        a.push(ax)
        a.push(bx)
        a.mov(bx, ticks)
        a.inc(Mem(bx, size=16))
        if ends:
            a.mov(AL, 0x20)
            a.out(0x20, AL)
        a.pop(bx)
        a.pop(ax)
        _return(a, bits)


def _return(a: Assembler, bits: int) -> None:
    {16: a.iret, 32: a.iretd, 64: a.iretq}[bits]()
