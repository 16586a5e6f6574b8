"""Each exception that can be forced, raised by an instruction: intercepted, and delivered without an intercept."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from trapline.arch.error_codes import PF_PRESENT, PF_USER, PF_WRITE
from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import CR0, CR4, DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.operands import AX, DS, EAX, ECX, SS, XMM0, Mem
from trapline.machine.processor import Capabilities

from .check import Check, Exit, Turn
from .code import ACCUMULATORS, Line, assemble
from .modes import (
    ABSENT_DATA,
    BEYOND_GDT,
    COMPATIBILITY,
    DATA,
    EVERYWHERE,
    LONG,
    PAGED_32,
    PROTECTED_16,
    PROTECTED_32,
    READ_ONLY,
    REAL,
    TSS,
    UNMAPPED,
    VIRTUAL,
    Mode,
    where,
)

NOT_RAISED: Final[Mapping[int, str]] = MappingProxyType(
    {
        Vector.CP: "needs shadow stacks or branch tracking, which few processors have",
        Vector.DF: "is combined from two other exceptions: a check of events",
        Vector.SX: "is raised by the platform, not by an instruction",
    }
)
"""Vectors that can be forced and that no check here raises, with the reason."""

_ONE: Final = RFLAGS.ALWAYS_ONE
_NO_CHANGE: Final[Mapping[str, int]] = MappingProxyType({})
_UNMASKED_X87: Final = 0x037B
"""The x87 control word that masks all exceptions except division by zero."""
_UNMASKED_SSE: Final = 0x1F00
_MINUS_ONE: Final = 0xBF80_0000

Listing: TypeAlias = "tuple[Line, ...]"

_PAGED: Final = (PAGED_32, LONG, COMPATIBILITY)

_X87: Final[Listing] = ("fninit", ("fldcw", Mem(None, DATA)), "fld1", ("fdiv", Mem(None, DATA + 4)), "at:", "wait")
_SSE: Final[Listing] = (("ldmxcsr", Mem(None, DATA)), ("movd", XMM0, EAX), "at:", ("sqrtss", XMM0, XMM0))


def _raised(
    vector: Vector,
    mode: Mode,
    listing: Listing,
    *,
    cpl: int = 0,
    by: str,
    sets: Mapping[str, int] = _NO_CHANGE,
    writes: tuple[tuple[int, bytes], ...] = (),
    info_1: int | None = None,
    info_2: int | None = None,
    changes: Mapping[str, int] = _NO_CHANGE,
    vectoring: Event | None = None,
    why_not: Callable[[Capabilities], str | None] = lambda capabilities: None,
) -> Check:
    """Return a check of an exit. The label "at" is RIP at the exit, a label "next" nRIP."""
    code = assemble(mode.bits, *listing, "cpuid")
    exit = Exit(
        exception_exit(vector),
        rip=code.labels["at"],
        nrip=code.labels.get("next"),
        info_1=info_1,
        info_2=info_2,
        vectoring=vectoring,
        changes=changes,
    )
    return Check(
        f"#{vector.name} by {by} {where(mode, cpl)}",
        f"the exit of #{vector.name} has the RIP, error code and address of the manual, and nothing else changed",
        mode,
        cpl,
        code.blob,
        (Turn(exit, sets=sets, writes=writes, exceptions=1 << vector),),
        why_not,
    )


def _no_ts_code(capabilities: Capabilities) -> str | None:
    return None if capabilities.ts_error_code else f"{capabilities.name} gives no error code for #TS"


def _page_fault(mode: Mode, cpl: int, by: str, listing: Listing, code: int, address: int) -> Check:
    return _raised(Vector.PF, mode, listing, cpl=cpl, by=by, info_1=code | (PF_USER if cpl else 0), info_2=address)


def _by_itself(
    vector: Vector, mode: Mode, cpl: int, line: Line, *, trap: bool = False, code: int | None = None
) -> Check:
    """Return a check of an exception that is not intercepted: its handler starts."""
    assembled = assemble(mode.bits, line, "next:", "cpuid")
    exit = Exit(
        ExitCode.CPUID,
        delivers=Event(vector, EventType.EXCEPTION, code),
        next_rip=assembled.labels["next"] if trap else None,
        changes={"save.cr2": UNMAPPED + 4} if vector == Vector.PF else {},
    )
    return Check(
        f"#{vector.name} is the guest's own {where(mode, cpl)}",
        f"without its intercept, #{vector.name} starts the guest's handler",
        mode,
        cpl,
        assembled.blob,
        (Turn(exit),),
    )


_SELECTORS: Final = tuple(
    check
    for mode in (PROTECTED_16, PROTECTED_32, LONG, COMPATIBILITY)
    for check in (
        _raised(
            Vector.GP, mode, ("at:", ("mov", DS, AX)), by="a selector beyond the GDT",
            sets={"save.rax": BEYOND_GDT}, info_1=BEYOND_GDT,
        ),
        _raised(
            Vector.NP, mode, ("at:", ("mov", DS, AX)), by="a segment that is not present",
            sets={"save.rax": ABSENT_DATA}, info_1=ABSENT_DATA,
        ),
        _raised(
            Vector.SS, mode, ("at:", ("mov", SS, AX)), by="a stack that is not present",
            sets={"save.rax": ABSENT_DATA}, info_1=ABSENT_DATA,
        ),
    )
)  # fmt: skip

_PAGE_FAULTS: Final = tuple(
    check
    for mode in _PAGED
    for cpl in mode.cpls
    for check in (
        _page_fault(mode, cpl, "a load", ("at:", ("mov", EAX, Mem(None, UNMAPPED + 8))), 0, UNMAPPED + 8),
        _page_fault(mode, cpl, "a store", ("at:", ("mov", Mem(None, UNMAPPED), EAX)), PF_WRITE, UNMAPPED),
        _page_fault(
            mode, cpl, "a store to a page for reading", ("at:", ("mov", Mem(None, READ_ONLY + 4), EAX)),
            PF_WRITE | PF_PRESENT, READ_ONLY + 4,
        ),
    )
)  # fmt: skip

_OTHERS: Final = (
    *(
        _raised(Vector.DE, mode, ("at:", ("div", ACCUMULATORS[mode.bits])), by="DIV")
        for mode in (REAL, PROTECTED_32, LONG)
    ),
    *(
        _raised(
            Vector.DB, mode, ("nop", "at:"), cpl=cpl, by="a single step",
            sets={"save.rflags": mode.flags | _ONE | RFLAGS.TF}, changes={"save.dr6": DR6.FIXED | DR6.BS},
        )
        for mode, cpl in EVERYWHERE
    ),
    *(_raised(Vector.BP, mode, ("at:", "int3", "next:"), cpl=cpl, by="INT3") for mode, cpl in EVERYWHERE),
    *(
        _raised(
            Vector.OF, mode, ("at:", "into", "next:"), cpl=cpl, by="INTO",
            sets={"save.rflags": mode.flags | _ONE | RFLAGS.OF},
        )
        for mode, cpl in EVERYWHERE
        if mode.bits != 64
    ),
    *(
        _raised(
            Vector.BR, mode, ("at:", ("bound", EAX, Mem(None, DATA))), by="BOUND",
            sets={"save.rax": 5}, writes=((DATA, bytes(8)),),
        )
        for mode in (PROTECTED_32, COMPATIBILITY)
    ),
    *(_raised(Vector.UD, mode, ("at:", "ud2"), cpl=cpl, by="UD2") for mode, cpl in EVERYWHERE),
    *(
        _raised(Vector.NM, mode, ("at:", "fld1"), by="the x87 with CR0.TS", sets={"save.cr0": mode.cr0 | CR0.TS})
        for mode in (REAL, PROTECTED_32, LONG)
    ),
    _raised(
        Vector.TS, PROTECTED_32, ("at:", ("int", 0x40)), cpl=3, by="a stack beyond the GDT",
        writes=((TSS + 8, BEYOND_GDT.to_bytes(4, "little")),), info_1=BEYOND_GDT,
        vectoring=Event(0x40, EventType.SOFT), why_not=_no_ts_code,
    ),
    *(
        _raised(Vector.GP, mode, ("at:", "hlt"), cpl=3, by="HLT", info_1=0)
        for mode in (PROTECTED_16, PROTECTED_32, VIRTUAL, LONG, COMPATIBILITY)
    ),
    *(
        _raised(
            Vector.MF, mode, _X87, by="a division by zero", sets={"save.cr0": mode.cr0 | CR0.NE},
            writes=((DATA, _UNMASKED_X87.to_bytes(8, "little")),),
        )
        for mode in (PROTECTED_32, LONG)
    ),
    *(
        _raised(
            Vector.AC, mode, ("at:", ("mov", ECX, Mem(None, DATA + 1))), cpl=3, by="an odd address",
            sets={"save.cr0": mode.cr0 | CR0.AM, "save.rflags": _ONE | RFLAGS.AC}, info_1=0,
        )
        for mode in (PROTECTED_32, LONG)
    ),
    *(
        _raised(
            Vector.XM, mode, _SSE, by="a square root",
            sets={"save.cr4": mode.cr4 | CR4.OSFXSR | CR4.OSXMMEXCPT, "save.rax": _MINUS_ONE},
            writes=((DATA, _UNMASKED_SSE.to_bytes(4, "little")),),
        )
        for mode in (PROTECTED_32, LONG)
    ),
)  # fmt: skip

_OWN: Final = (
    *(_by_itself(Vector.UD, mode, cpl, "ud2") for mode, cpl in EVERYWHERE),
    *(_by_itself(Vector.BP, mode, cpl, "int3", trap=True) for mode, cpl in EVERYWHERE),
    *(
        _by_itself(Vector.PF, mode, cpl, ("mov", EAX, Mem(None, UNMAPPED + 4)), code=PF_USER if cpl else 0)
        for mode in _PAGED
        for cpl in mode.cpls
    ),
)

CHECKS: Final = (*_OTHERS, *_SELECTORS, *_PAGE_FAULTS, *_OWN)
