"""Why the first event of a chain was raised, where the state and the instruction prove it."""

from collections.abc import Callable
from typing import Final

from trapline.arch.descriptors import REAL_IDT_LIMIT
from trapline.arch.error_codes import describe_debug
from trapline.arch.events import EventType
from trapline.arch.vectors import Vector

from .attempt import Attempt
from .evidence import Evidence
from .instruction import Instruction, Namer
from .page_faults import page_fault
from .protection import protection, segment, stack
from .state import remarks
from .undefined import bound, divide, not_available, overflow, undefined


def reason(evidence: Evidence, attempt: Attempt, name: Namer | None = None) -> str | None:
    """Say why the attempt's event was raised; None: nothing proves it."""
    event = attempt.event
    if event.type == EventType.INTR:
        if not attempt.real and 8 <= event.vector < 16:
            return f"IRQ {event.vector - 8} arrived at an exception vector: the interrupt controller was not remapped"
        return None
    if event.type == EventType.SOFT:
        return _bios_call(attempt)
    if event.type != EventType.EXCEPTION:
        return None
    if event.vector == Vector.DB:
        return describe_debug(attempt.save.dr6)
    i = Instruction(attempt, evidence, name)
    rule = _RULES.get(event.vector)
    told = page_fault(i, evidence.first_address) if event.vector == Vector.PF else None if rule is None else rule(i)
    return "; ".join(filter(None, (told, *remarks(i)))) or None


def _bios_call(attempt: Attempt) -> str | None:
    """INT n by the vectors of real mode (APM vol. 2, 8.6, 8.7)."""
    vector, idtr = attempt.event.vector, attempt.save.idtr
    if attempt.real or idtr.base or idtr.limit not in (REAL_IDT_LIMIT, 0xFFFF) or not 0x10 <= vector <= 0x1F:
        return None
    return f"INT {vector:#x} is a call of the BIOS, which works in real mode only"


_RULES: Final[dict[int, Callable[[Instruction], str | None]]] = {
    Vector.DE: divide,
    Vector.OF: overflow,
    Vector.BR: bound,
    Vector.UD: undefined,
    Vector.NM: not_available,
    Vector.TS: segment,
    Vector.NP: segment,
    Vector.SS: stack,
    Vector.GP: protection,
}
