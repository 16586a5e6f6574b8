"""What instructions work on: the registers by name, and operands in memory."""

from typing import Final, NamedTuple

import iced_x86 as iced


class Reg(NamedTuple):
    """A register: iced's number and the kind that operand tables name it by, as `R64` or `CR`."""

    number: int
    kind: str


class Mem(NamedTuple):
    """A memory operand, [segment: base + index * scale + displacement].

    `size` in bits is needed only where no register operand gives it.
    """

    base: Reg | None
    displacement: int = 0
    index: Reg | None = None  # type: ignore[assignment]  # tuple.index is not missed
    scale: int = 1
    size: int | None = None
    segment: Reg | None = None


_LEGACY: Final = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")


def _reg(name: str, kind: str) -> Reg:
    return Reg(getattr(iced.Register, name), kind)


RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI = (_reg(f"R{name}", "R64") for name in _LEGACY)
R8, R9, R10, R11, R12, R13, R14, R15 = (_reg(f"R{number}", "R64") for number in range(8, 16))
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = (_reg(f"E{name}", "R32") for name in _LEGACY)
AX, CX, DX, BX = (_reg(name, "R16") for name in _LEGACY[:4])
AL, CL, DL, BL = (_reg(name, "R8") for name in ("AL", "CL", "DL", "BL"))
CR0, CR2, CR3, CR4 = (_reg(name, "CR") for name in ("CR0", "CR2", "CR3", "CR4"))
CS, DS, ES, SS = (_reg(name, "SEG") for name in ("CS", "DS", "ES", "SS"))
XMM0 = _reg("XMM0", "XMM")
