"""One guest for each exception that a guest can raise: it is raised once, handled and stepped over."""

from functools import partial
from typing import Final

from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, EAX, ECX, EDX, ES, RAX, RSP, SS, XMM0, Mem

from . import places
from .kernel import Kernel, guest
from .programs import enter_user
from .sample import End, Sample
from .tables import Gate

_X87_CONTROL: Final = 0x37B
"""The x87 control word with division by zero unmasked."""
_MXCSR: Final = 0x1F00
"""MXCSR with invalid operations unmasked."""


def _divide_error(kernel: Kernel) -> None:
    kernel.code.mov(EAX, 1)
    kernel.code.mov(EDX, 0)
    kernel.code.mov(ECX, 0)
    kernel.raises(lambda code: code.div(ECX))


def _debug(kernel: Kernel) -> None:

    def step(code: Assembler) -> None:
        code.pushfq()
        code.or_(Mem(RSP, size=32), RFLAGS.TF)
        code.popfq()
        code.nop()

    kernel.raises(step, trap=True)


def _breakpoint(kernel: Kernel) -> None:
    kernel.raises(lambda code: code.int3(), trap=True)


def _overflow(kernel: Kernel) -> None:
    kernel.code.mov(EAX, 0x7FFF_FFFF)
    kernel.code.mov(ECX, 1)

    def overflow(code: Assembler) -> None:
        code.add(EAX, ECX)
        code.into()

    kernel.raises(overflow, trap=True)


def _bound_range(kernel: Kernel) -> None:
    kernel.code.mov(EAX, 1)
    kernel.raises(lambda code: code.bound(EAX, Mem(None, places.ZERO)))


def _invalid_opcode(kernel: Kernel) -> None:
    kernel.raises(lambda code: code.ud2())


def _device_not_available(kernel: Kernel) -> None:
    kernel.code.mov(RAX, operands.CR0)
    kernel.code.or_(EAX, CR0.TS)
    kernel.code.mov(operands.CR0, RAX)
    kernel.raises(lambda code: code.fninit())


def _double_fault(kernel: Kernel) -> None:
    kernel.gates[Vector.DE] = Gate(places.CODE, present=False)
    kernel.code.mov(EAX, 1)
    kernel.code.mov(EDX, 0)
    kernel.code.mov(ECX, 0)
    kernel.raises(lambda code: code.div(ECX))


def _invalid_tss(kernel: Kernel) -> None:
    kernel.raises(lambda code: code.far_jump(places.SHORT_TSS_SELECTOR, 0))


def _segment_not_present(kernel: Kernel) -> None:
    kernel.code.mov(EAX, places.ABSENT_SELECTOR)
    kernel.raises(lambda code: code.mov(ES, AX))


def _stack(kernel: Kernel) -> None:
    kernel.code.mov(EAX, places.ABSENT_SELECTOR)
    kernel.raises(lambda code: code.mov(SS, AX))


def _general_protection(kernel: Kernel) -> None:
    kernel.code.mov(EAX, places.NO_SELECTOR)
    kernel.raises(lambda code: code.mov(ES, AX))


def _page_fault(kernel: Kernel) -> None:
    kernel.code.mov(RAX, places.UNMAPPED + 0x123)
    kernel.raises(lambda code: code.mov(ECX, Mem(RAX)))
    kernel.raises(lambda code: code.mov(Mem(RAX), ECX))


def _floating_point(kernel: Kernel) -> None:
    kernel.code.fninit()
    kernel.code.mov(Mem(None, places.WORD, size=32), _X87_CONTROL)
    kernel.code.fldcw(Mem(None, places.WORD))
    kernel.code.fld1()
    kernel.code.fdiv(Mem(None, places.ZERO))
    kernel.raises(lambda code: code.wait())
    kernel.code.fninit()


def _alignment_check(kernel: Kernel) -> None:
    user = kernel.user
    user.pushfq()
    user.or_(Mem(RSP, size=32), RFLAGS.AC)
    user.popfq()
    kernel.raises(lambda code: code.mov(EAX, Mem(None, places.VARIABLES + 1)), user=True)
    enter_user(kernel)


def _simd_floating_point(kernel: Kernel) -> None:
    kernel.code.mov(Mem(None, places.WORD, size=32), _MXCSR)
    kernel.code.ldmxcsr(Mem(None, places.WORD))
    kernel.code.xorps(XMM0, XMM0)
    kernel.raises(lambda code: code.divss(XMM0, XMM0))


_ROWS: Final = (
    (Vector.DE, "DIV by zero", _divide_error),
    (Vector.DB, "a single step by RFLAGS.TF", _debug),
    (Vector.BP, "INT3", _breakpoint),
    (Vector.OF, "INTO after an addition that overflows", _overflow),
    (Vector.BR, "BOUND with an index of 1 and bounds of 0 and 0", _bound_range),
    (Vector.UD, "UD2", _invalid_opcode),
    (Vector.NM, "an x87 instruction with CR0.TS set", _device_not_available),
    (Vector.DF, "DIV by zero, and the gate of #DE is not present", _double_fault),
    (Vector.TS, "a jump to a TSS that is too short", _invalid_tss),
    (Vector.NP, "a load of ES with a segment that is not present", _segment_not_present),
    (Vector.SS, "a load of SS with a segment that is not present", _stack),
    (Vector.GP, "a load of ES with a selector beyond the GDT", _general_protection),
    (Vector.PF, "a read and a write of a page that is not mapped", _page_fault),
    (Vector.MF, "an x87 division by zero, unmasked", _floating_point),
    (Vector.AC, "at CPL 3 with RFLAGS.AC: a read across its alignment", _alignment_check),
    (Vector.XM, "0 / 0 in SSE, unmasked", _simd_floating_point),
)
_ALSO: Final = {Vector.DF: (Vector.DE, Vector.NP)}
"""What the guest raises before the exception that it is for."""

_BITS: Final = {Vector.OF: 32, Vector.BR: 32, Vector.TS: 32}
"""What long mode does not know: INTO, BOUND, and the task switch."""

EXCEPTIONS: Final = tuple(
    Sample(
        vector.name.lower(),
        description,
        tuple(sorted((vector, *_ALSO.get(vector, ())))),
        End.DONE,
        partial(guest, description, fill, bits=_BITS.get(vector, 64)),
    )
    for vector, description, fill in _ROWS
)
