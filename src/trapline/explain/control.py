"""Why a control register, an extended control register or a model-specific register does not take a value."""

from collections.abc import Callable, Iterable
from typing import Final

from trapline.arch import msr
from trapline.arch.cpuid import CR4_FEATURES, EAX, EDX, EFER_FEATURES, XSAVE_AREAS
from trapline.arch.registers import CR0, CR3, CR4, EFER
from trapline.arch.vmcb import SaveArea

from .cpuid import CpuidAnswers, bit_name
from .instruction import Instruction

_NAMES: Final = {
    value: name
    for name, value in vars(msr).items()
    if isinstance(value, int) and name.isupper() and not name.startswith(("_", "VM_CR_", "MSRPM", "IOPM"))
}
_CANONICAL: Final = (
    msr.FS_BASE, msr.GS_BASE, msr.KERNEL_GS_BASE, msr.LSTAR, msr.CSTAR, msr.SYSENTER_ESP, msr.SYSENTER_EIP,
)  # fmt: skip
"""Linear addresses, which must be canonical (APM vol. 3, WRMSR)."""
_PAT_TYPES: Final = (0, 1, 4, 5, 6, 7)
"""APM vol. 2, 7.8.1."""


def bits_of(register: type, value: int) -> str:
    """Return the names of the bits that are set, as "PG and WP"; bits without a name by their numbers."""
    names = {bit: name for name, bit in vars(register).items() if isinstance(bit, int) and bit and not bit & bit - 1}
    found = [names.get(1 << bit, f"bit {bit}") for bit in range(64) if value >> bit & 1]
    return " and ".join(filter(None, (", ".join(found[:-1]), found[-1] if found else "")))


def control_register(i: Instruction) -> str | None:
    """Say why a MOV to a control register raised #GP (APM vol. 2, 3.1; vol. 3, MOV CRn)."""
    name, value = i.control, i.value(1)
    if name is None or value is None:
        return None
    why = _CONTROL[name](i, value) if name in _CONTROL else None
    return f"the CPU rejects the value {value:#x} for {name}" + (f": {why}" if why else "")


def _cr0(i: Instruction, value: int) -> str | None:
    """APM vol. 2, 3.1.1, 14.6.1."""
    save = i.attempt.save
    pages = value & CR0.PG and not save.cr0 & CR0.PG
    rows = (
        (value >> 32, "bits 63:32 are reserved"),
        (value & CR0.PG and not value & CR0.PE, "PG, paging, needs PE, protected mode"),
        (value & (CR0.NW | CR0.CD) == CR0.NW, "NW may not be set while CD is clear"),
        (pages and save.efer & EFER.LME and not save.cr4 & CR4.PAE,
         "EFER.LME is set, and long mode needs CR4.PAE, which is clear, before paging is turned on"),
        (not value & CR0.PG and i.bits == 64, "paging cannot be turned off in 64-bit code"),
        (not value & CR0.PG and save.cr4 & CR4.PCIDE, "paging cannot be turned off while CR4.PCIDE is set"),
        (not value & CR0.WP and save.cr4 & CR4.CET, "WP cannot be cleared while CR4.CET is set"),
    )  # fmt: skip
    return next((text for wrong, text in rows if wrong), None)


def _cr3(i: Instruction, value: int) -> str | None:
    """APM vol. 2, 5.3.2."""
    if i.attempt.save.cr4 & CR4.PCIDE:
        value &= ~CR3.KEEP_TLB
    if not value >> i.attempt.physical_bits:
        return None
    linear = "; it takes the physical address of the table, and this is a linear one" if value >> 47 == 0x1_FFFF else ""
    return f"a physical address has {i.attempt.physical_bits} bits{linear}"


def _cr4(i: Instruction, value: int) -> str | None:
    """APM vol. 2, 3.1.3, 5.5.1."""
    save = i.attempt.save
    changed, long = value ^ save.cr4, save.efer & EFER.LMA
    missing = lacking(i.cpuid, CR4, value, CR4_FEATURES)
    known = CR4.PCE | sum(row[0] for row in CR4_FEATURES)
    rows = (
        (missing, missing),
        (value & ~known, f"{bits_of(CR4, value & ~known)} is reserved"),
        (long and not value & CR4.PAE, "PAE cannot be cleared in long mode"),
        (long and changed & CR4.LA57, "LA57 cannot change in long mode"),
        (changed & value & CR4.PCIDE and not long, "PCIDE can be set in long mode only"),
        (changed & value & CR4.PCIDE and save.cr3 & CR3.PCID,
         f"PCIDE cannot be set while CR3[11:0] is not zero, and it is {save.cr3 & CR3.PCID:#x}"),
        (value & CR4.CET and not save.cr0 & CR0.WP, "CET needs CR0.WP, which is clear"),
    )  # fmt: skip
    return "; ".join(text for wrong, text in rows if wrong and text) or None


_CONTROL: Final[dict[str, Callable[[Instruction, int], str | None]]] = {"CR0": _cr0, "CR3": _cr3, "CR4": _cr4}


def lacking(cpuid: CpuidAnswers, register: type, value: int, rows: Iterable[tuple[int, int, int, int]]) -> str | None:
    """Say which bits the CPU lacks, with the bits of CPUID that would report them."""
    return (
        "; ".join(
            f"the guest's CPU lacks {bits_of(register, bit)} ({bit_name(*place)})"
            for bit, *place in rows
            if value & bit and cpuid.has(*place) is False
        )
        or None
    )


def model_specific(i: Instruction) -> str | None:
    """Say why RDMSR or WRMSR raised #GP (APM vol. 3, RDMSR, WRMSR)."""
    if i.name not in ("wrmsr", "rdmsr"):
        return None
    number = i.ecx
    name = f"{_NAMES[number]} ({number:#x})" if number in _NAMES else f"MSR {number:#x}"
    if i.name == "rdmsr":
        return f"the CPU rejects rdmsr of {name}"
    why = _refused(i, number, i.edx_eax)
    return f"the CPU rejects wrmsr of {i.edx_eax:#x} to {name}" + (f": {why}" if why else "")


def _refused(i: Instruction, number: int, value: int) -> str | None:
    if number == msr.EFER:
        return _efer(i.attempt.save, i.cpuid, value)
    if number in _CANONICAL and i.attempt.save.efer & EFER.LMA and not i.attempt.space.is_canonical(value):
        return "it is not a canonical address"
    if number == msr.PAT:
        wrong = next((each for each in value.to_bytes(8, "little") if each not in _PAT_TYPES), None)
        return None if wrong is None else f"{wrong:#x} is not a memory type"
    return None


def _efer(save: SaveArea, cpuid: CpuidAnswers, value: int) -> str | None:
    """APM vol. 2, 3.1.7, 14.6.1."""
    known = EFER.LMA | EFER.SVME | EFER.LMSLE | sum(row[0] for row in EFER_FEATURES)
    if (value ^ save.efer) & EFER.LME and save.cr0 & CR0.PG:
        return "LME cannot change while paging is on (CR0.PG)"
    missing = lacking(cpuid, EFER, value, EFER_FEATURES)
    if missing is not None:
        return missing
    return f"{bits_of(EFER, value & ~known)} is reserved" if value & ~known else None


def extended_control(i: Instruction) -> str | None:
    """Say why XSETBV raised #GP (APM vol. 3, XSETBV; vol. 2, 11.5.2)."""
    if i.name != "xsetbv":
        return None
    value, areas = i.edx_eax, i.cpuid(XSAVE_AREAS)
    supported = None if areas is None else areas[EAX] | areas[EDX] << 32
    rows = (
        (i.ecx, f"there is no XCR{i.ecx}"),
        (not value & 1, "bit 0, x87, must be set"),
        (value & 4 and not value & 2, "bit 2, AVX, needs bit 1, SSE"),
        (supported is not None and value & ~supported, f"the guest's CPU has {supported or 0:#x} alone"),
    )  # fmt: skip
    why = next((text for wrong, text in rows if wrong), None)
    return f"the CPU rejects the value {value:#x} for XCR{i.ecx}" + (f": {why}" if why else "")
