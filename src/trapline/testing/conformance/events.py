"""EVENTINJ in every mode, and EXITINTINFO when a delivery fails (APM 15.20, 15.7.2, 15.7.3)."""

from collections.abc import Iterator
from typing import Final

from trapline.arch.error_codes import SELECTOR_EXTERNAL, SELECTOR_IDT
from trapline.arch.events import DOUBLE_FAULT, Event, EventType, is_software
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import FORCEABLE, WITH_ERROR_CODE, Vector, bits

from .check import Check, Exit, Turn
from .code import assemble
from .modes import (
    COMPATIBILITY,
    CPUID,
    EVERYWHERE,
    LONG,
    PAGED_32,
    PROTECTED_32,
    UNMAPPED,
    Mode,
    gate,
    where,
)

_CODE: Final = 0x1234
_IRQ: Final = 0x51
_SOFT: Final = 0x52
_CR2: Final = 0xABCD_E000
_DR6: Final = DR6.FIXED | DR6.B1
_END: Final = CPUID
"""Code that is not reached."""


def _kinds(mode: Mode) -> Iterator[tuple[str, Event]]:
    """Yield an event of each kind that a mode can have, with its name."""
    yield "an interrupt", Event(_IRQ, EventType.INTR)
    yield "an NMI", Event(Vector.NMI, EventType.NMI)
    yield "INT n", Event(_SOFT, EventType.SOFT)
    yield "#BP", Event(Vector.BP, EventType.EXCEPTION)
    if mode.bits != 64:
        yield "#OF", Event(Vector.OF, EventType.EXCEPTION)
    yield "#UD", Event(Vector.UD, EventType.EXCEPTION)
    if mode.gate:  # real mode has no error codes
        yield "#GP", Event(Vector.GP, EventType.EXCEPTION, _CODE)
        yield "#PF", Event(Vector.PF, EventType.EXCEPTION, 2)


def _injected(name: str, event: Event, mode: Mode, cpl: int) -> Check:
    """Return a check of an injection; nRIP differs from RIP, to tell which of them the frame has."""
    code = assemble(mode.bits, "nop", "next:", "cpuid")
    after = code.labels["next"]
    flags = mode.flags | RFLAGS.ALWAYS_ONE | RFLAGS.CF | RFLAGS.IF
    return Check(
        f"inject {name} {where(mode, cpl)}",
        "the handler starts with the frame of the model; CR2 and DR6 are unchanged; the event is not delivered twice",
        mode,
        cpl,
        code.blob,
        (
            Turn(
                Exit(ExitCode.CPUID),
                sets={"save.cr2": _CR2, "save.dr6": _DR6, "save.rflags": flags, "control.nrip": after},
                inject=event,
            ),
            Turn(Exit(ExitCode.CPUID)),
        ),
    )


def _each(vector: int) -> Check:
    code = 0 if WITH_ERROR_CODE >> vector & 1 else None
    event = Event(vector, EventType.EXCEPTION, code)
    mode = PROTECTED_32 if vector == Vector.BR else LONG
    return _injected(f"{event} as forwarded", event, mode, 0)


def _unreadable_idt(mode: Mode, event: Event, name: str) -> Check:
    """Return a check of a delivery with a page fault on the IDT."""
    width = 16 if mode.long else 8
    exit = Exit(exception_exit(Vector.PF), info_1=0, info_2=UNMAPPED + event.vector * width, vectoring=event)
    return Check(
        f"{name} without an IDT {where(mode, 0)}",
        "a #PF on the IDT exits; EXITINTINFO holds the event that was being delivered, CR2 is unchanged",
        mode,
        0,
        _END,
        (
            Turn(
                exit,
                sets={"save.idtr.base": UNMAPPED, "save.cr2": _CR2, "control.nrip": len(CPUID)},
                exceptions=1 << Vector.PF,
                inject=event,
            ),
        ),
    )


def _absent_gate(mode: Mode, event: Event, name: str) -> Check:
    external = 0 if is_software(event) else SELECTOR_EXTERNAL
    exit = Exit(exception_exit(Vector.NP), info_1=event.vector << 3 | SELECTOR_IDT | external, vectoring=event)
    return Check(
        f"{name} through an absent gate {where(mode, 0)}",
        "the #NP exits with the gate in its error code; EXITINTINFO holds the event",
        mode,
        0,
        _END,
        (
            Turn(
                exit,
                sets={"control.nrip": len(CPUID)},
                writes=(gate(mode, event.vector, present=False),),
                exceptions=1 << Vector.NP,
                inject=event,
            ),
        ),
    )


def _double_fault(mode: Mode) -> Check:
    """Return a check of #GP whose delivery raises #NP, which is not intercepted: they combine to #DF."""
    event = Event(Vector.GP, EventType.EXCEPTION, 0)
    turn = Turn(
        Exit(ExitCode.CPUID, delivers=DOUBLE_FAULT, drops=True),
        writes=(gate(mode, Vector.GP, present=False),),
        inject=event,
    )
    caught = turn._replace(expected=Exit(exception_exit(Vector.DF), drops=True), exceptions=1 << Vector.DF)
    return Check(
        f"#DF {where(mode, 0)}",
        "two contributory exceptions combine to a double fault, which starts its handler or exits",
        mode,
        0,
        _END,
        (turn, caught._replace(sets={"save.rip": 0})),
    )


def _triple_fault(mode: Mode) -> Check:
    """Return a check of #DF whose delivery fails."""
    return Check(
        f"SHUTDOWN by a #DF {where(mode, 0)}",
        "a fault in the delivery of a double fault is a shutdown",
        mode,
        0,
        _END,
        (
            Turn(
                Exit(ExitCode.SHUTDOWN, keeps_state=False),
                writes=(gate(mode, Vector.DF, present=False),),
                inject=DOUBLE_FAULT,
            ),
        ),
    )


CHECKS: Final = (
    *(_injected(name, event, mode, cpl) for mode, cpl in EVERYWHERE for name, event in _kinds(mode)),
    *(_each(vector) for vector in bits(FORCEABLE)),
    *(
        check(mode, event, name)
        for mode in (PAGED_32, LONG, COMPATIBILITY)
        for name, event in _kinds(mode)
        for check in (_unreadable_idt, _absent_gate)
        if event.vector not in (Vector.PF, Vector.GP)
    ),
    *(
        check(mode)
        for mode in (PROTECTED_32, PAGED_32, LONG, COMPATIBILITY)
        for check in (_double_fault, _triple_fault)
    ),
)
