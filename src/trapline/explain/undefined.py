"""Why an instruction raised #UD, #NM or #DE."""

from collections.abc import Callable
from typing import Final

from trapline.arch.cpuid import EBX, XSAVE_AREAS
from trapline.arch.features import INSTRUCTIONS
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS

from .cpuid import bit_name
from .instruction import Instruction

_DELIBERATE: Final = ("ud2", "ud0", "ud1")
_SYSTEM_CALLS: Final = ("syscall", "sysret", "sysretq")
_BASES: Final = ("rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase")
_PROTECTED: Final = ("ltr", "lldt", "str", "sldt", "verr", "verw", "lar", "lsl")
"""Not recognized in real and virtual-8086 mode (APM vol. 3, each)."""
_NO_AVX: Final = "Unicorn, which runs guests in this process, has no AVX; QEMU has: --processor qemu -- -cpu max"
_AVX_AREA: Final = 576 + 256
"""Bytes of an XSAVE area with the AVX state (APM vol. 2, 11.5.2)."""


def undefined(i: Instruction) -> str | None:
    """Say why #UD was raised (APM vol. 2, 8.2.7)."""
    if not i.valid and (told := _mov_to_cs(i) or _lock(i)) is not None:
        return told
    if not i.valid:
        gpa = i.attempt.unbacked(i.attempt.rip)
        where = "" if gpa is None else f": RIP is mapped to {gpa:#x}, where there is no memory"
        return f"the bytes at RIP are not a valid instruction{where}"
    return "; ".join(told for rule in _UNDEFINED if (told := rule(i)) is not None) or None


def _deliberate(i: Instruction) -> str | None:
    return f"{i.name} always raises #UD" if i.name in _DELIBERATE else None


def _mov_to_cs(i: Instruction) -> str | None:
    """APM vol. 3, MOV."""
    return "mov to CS always raises #UD: only a far jump, call or return loads CS" if i.moves_to_cs else None


def _lock(i: Instruction) -> str | None:
    """APM vol. 3, 1.2.5."""
    return "the instruction may not have its LOCK prefix" if i.unchecked.has_lock_prefix else None


def _emulated(i: Instruction) -> str | None:
    """APM vol. 2, 3.1.1."""
    if i.is_sse and i.attempt.save.cr0 & CR0.EM:
        return f"{i.name} is an SSE instruction, and CR0.EM is set: SSE is disabled"
    return None


def _no_osfxsr(i: Instruction) -> str | None:
    """APM vol. 2, 3.1.3."""
    if i.is_sse and not i.attempt.save.cr4 & CR4.OSFXSR:
        return f"{i.name} is an SSE instruction, and CR4.OSFXSR is clear: SSE is disabled"
    return None


def _lacking(i: Instruction) -> str | None:
    """APM vol. 3, appendix E."""
    for feature in sorted(i.features):
        place = INSTRUCTIONS.get(feature)
        if place is not None and i.cpuid.has(*place) is False:
            more = _NO_AVX if i.is_avx else "QEMU's -cpu max has more"
            return (
                f"{i.name} is an instruction of {feature.replace('_', '.')}, which the guest's CPU lacks "
                f"({bit_name(*place)}): {more}"
            )
    return None


def _no_osxsave(i: Instruction) -> str | None:
    """APM vol. 2, 11.5.1; vol. 3, XSETBV."""
    if i.attempt.save.cr4 & CR4.OSXSAVE:
        return None
    if i.is_avx:
        return f"{i.name} is an AVX instruction, and CR4.OSXSAVE is clear: AVX is disabled"
    if i.name.startswith("xsave") or i.name in ("xsetbv", "xgetbv", "xrstor", "xrstors"):
        return f"{i.name} needs CR4.OSXSAVE, which is clear"
    return None


def _no_avx_in_xcr0(i: Instruction) -> str | None:
    """APM vol. 2, 11.5.2: CPUID gives the size of the area that XCR0 enables."""
    answer = i.cpuid(XSAVE_AREAS)
    if i.is_avx and i.attempt.save.cr4 & CR4.OSXSAVE and answer is not None and 0 < answer[EBX] < _AVX_AREA:
        return f"{i.name} is an AVX instruction, and XCR0 lacks bit 2, AVX: XSETBV has not enabled it"
    return None


def _no_sce(i: Instruction) -> str | None:
    """APM vol. 2, 3.1.7; vol. 3, SYSCALL."""
    if i.name in _SYSTEM_CALLS and not i.attempt.save.efer & EFER.SCE:
        return f"{i.name} needs EFER.SCE, which is clear: the system call extensions are not enabled"
    return None


def _no_fsgsbase(i: Instruction) -> str | None:
    """APM vol. 3, RDFSBASE."""
    if i.name in _BASES and not i.attempt.save.cr4 & CR4.FSGSBASE:
        return f"{i.name} needs CR4.FSGSBASE, which is clear"
    return None


def _not_protected(i: Instruction) -> str | None:
    """APM vol. 3, 4."""
    real = i.attempt.real or i.attempt.save.rflags & RFLAGS.VM
    return f"{i.name} is not an instruction of real or virtual-8086 mode" if real and i.name in _PROTECTED else None


_UNDEFINED: Final[tuple[Callable[[Instruction], str | None], ...]] = (
    _deliberate, _emulated, _lacking, _no_osfxsr, _no_osxsave, _no_avx_in_xcr0, _no_sce,
    _no_fsgsbase, _not_protected,
)  # fmt: skip


def not_available(i: Instruction) -> str | None:
    """Say why #NM was raised (APM vol. 2, 8.2.8)."""
    for bit, name in ((CR0.TS, "CR0.TS"), (CR0.EM, "CR0.EM")):
        if i.valid and i.attempt.save.cr0 & bit:
            return f"{i.name} uses FPU or SSE state, and {name} is set"
    return None


def divide(i: Instruction) -> str | None:
    """Say why #DE was raised (APM vol. 2, 8.2.1)."""
    if not i.valid or i.name not in ("div", "idiv"):
        return None
    divisor = i.value(0)
    if divisor is None:
        return None
    return f"{i.name} by zero" if divisor == 0 else f"{i.name} by {divisor:#x}: the quotient is too large"


def overflow(i: Instruction) -> str | None:
    """Say why #OF was raised (APM vol. 2, 8.2.5)."""
    return "into, and RFLAGS.OF is set" if i.name == "into" else None


def bound(i: Instruction) -> str | None:
    """Say why #BR was raised (APM vol. 2, 8.2.6; vol. 3, BOUND)."""
    operand, index = next(i.operands(), None), i.value(0) if i.name == "bound" else None
    if operand is None or index is None:
        return None
    width = operand.size // 2
    lower, upper = (i.attempt.read(operand.address + at, width) for at in (0, width))
    if lower is None or upper is None:
        return None
    first, low, high = (value - (value >> 8 * width - 1 << 8 * width) for value in (index, lower, upper))
    return f"bound: the index {first} is not between {low} and {high}"
