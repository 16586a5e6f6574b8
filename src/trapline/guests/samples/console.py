"""What every sample guest has: text on COM1, and a handler that tells of an exception and steps over it."""

from typing import Final, NamedTuple

from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import VECTORS, WITH_ERROR_CODE, Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, CL, EAX, EBX, ECX, EDX, ESI, ESP, RAX, RBX, RCX, RDX, RSI, RSP, Mem, Reg
from trapline.devices.power import DEBUG_EXIT
from trapline.devices.uart import COM1

from . import places

_LINE_STATUS: Final = COM1 + 5
_CAN_SEND: Final = 1 << 5


class Registers(NamedTuple):
    """The registers that the routines use, in the width of the code."""

    ax: Reg
    bx: Reg
    cx: Reg
    dx: Reg
    si: Reg
    sp: Reg


REGISTERS: Final = {
    32: Registers(EAX, EBX, ECX, EDX, ESI, ESP),
    64: Registers(RAX, RBX, RCX, RDX, RSI, RSP),
}


class Texts:
    """The texts of a guest, and where each lies."""

    def __init__(self) -> None:
        self.content = bytearray()

    def __call__(self, text: str) -> int:
        """Return the address of a text."""
        data = text.encode("ascii") + b"\0"
        at = self.content.find(data)
        if at < 0:
            at = len(self.content)
            self.content += data
        return places.TEXT + at


def routines(code: Assembler, bits: int, texts: Texts) -> None:
    """Emit `print` (text at SI), `hex` (number in AX), `finish`, `fail` and the stubs `vector0` and so on."""
    _print(code, bits)
    _hex(code, bits, texts)
    for label, status in (("finish", 0), ("fail", 1)):
        code.label(label)
        code.mov(AL, status)
        code.out(DEBUG_EXIT, AL)
        code.label(f"{label} forever")
        code.cli()
        code.hlt()
        code.jmp(f"{label} forever")
    code.label("nothing raised")
    code.mov(REGISTERS[bits].si, texts("nothing was raised: this CPU does not know the exception\n"))
    code.call("print")
    code.jmp("fail")
    _handler(code, bits, texts)


def _print(code: Assembler, bits: int) -> None:
    r = REGISTERS[bits]
    code.label("print")
    code.mov(AL, Mem(r.si))
    code.test(AL, AL)
    code.je("printed")
    code.call("put")
    code.inc(r.si)
    code.jmp("print")
    code.label("printed")
    code.ret()

    code.label("put")
    code.push(r.dx)
    code.push(r.ax)
    code.mov(EDX, _LINE_STATUS)
    code.label("wait")
    code.in_(AL, operands.DX)
    code.test(AL, _CAN_SEND)
    code.je("wait")
    code.pop(r.ax)
    code.mov(EDX, COM1)
    code.out(operands.DX, AL)
    code.pop(r.dx)
    code.ret()


def _hex(code: Assembler, bits: int, texts: Texts) -> None:
    r = REGISTERS[bits]
    code.label("hex")
    code.mov(r.dx, r.ax)
    code.mov(r.si, texts("0x"))
    code.call("print")
    code.mov(ECX, bits - 4)
    code.label("leading zeros")
    code.mov(r.ax, r.dx)
    code.shr(r.ax, CL)
    code.jne("digits")
    code.sub(ECX, 4)
    code.jne("leading zeros")
    code.label("digits")
    code.mov(r.ax, r.dx)
    code.shr(r.ax, CL)
    code.and_(EAX, 0xF)
    code.add(AL, ord("0"))
    code.cmp(AL, ord("9") + 1)
    code.jb("digit")
    code.add(AL, ord("a") - ord("9") - 1)
    code.label("digit")
    code.call("put")
    code.sub(ECX, 4)
    code.jns("digits")
    code.ret()


def _handler(code: Assembler, bits: int, texts: Texts) -> None:
    """Print "#GP(0x18) at rip 0x101234, handled", step over the instruction and go on."""
    for row in VECTORS:
        code.label(f"vector{row.vector}")
        if not WITH_ERROR_CODE & row.bit:
            code.push(0)
        code.push(row.vector)
        code.jmp("handler")

    r = REGISTERS[bits]
    saved = (r.ax, r.bx, r.cx, r.dx, r.si)
    vector, error, rip, _, rflags = (Mem(r.sp, (len(saved) + place) * bits // 8) for place in range(5))

    def say(text: str) -> None:
        code.mov(r.si, texts(text))
        code.call("print")

    code.label("handler")
    for register in saved:
        code.push(register)
    code.inc(Mem(None, places.COUNT, size=32))
    code.mov(r.si, vector)
    code.shl(r.si, places.NAME_SIZE.bit_length() - 1)
    code.add(r.si, places.NAMES)
    code.call("print")

    code.mov(r.cx, vector)
    code.mov(EAX, WITH_ERROR_CODE)
    code.bt(EAX, ECX)
    code.jae("no error code")
    say("(")
    code.mov(r.ax, error)
    code.call("hex")
    say(")")
    code.label("no error code")
    code.mov(r.cx, vector)
    code.cmp(ECX, Vector.PF)
    code.jne("no address")
    say(" for ")
    code.mov(r.ax, operands.CR2)
    code.call("hex")
    code.label("no address")
    say(" at rip ")
    code.mov(r.ax, rip)
    code.call("hex")
    say(", handled\n")

    code.mov(EAX, Mem(None, places.SKIP))
    code.add(rip, r.ax)
    code.and_(Mem(r.sp, rflags.displacement, size=32), ~RFLAGS.TF)
    for register in reversed(saved):
        code.pop(register)
    code.add(r.sp, 2 * bits // 8)
    interrupt_return(code, bits)


def interrupt_return(code: Assembler, bits: int) -> None:
    """Emit IRET in the width of the code."""
    if bits == 64:
        code.iretq()
    else:
        code.iretd()
