"""Why a page fault was raised: the access, what denied it, and where its address came from (APM vol. 2, 8.2.15)."""

from collections.abc import Callable
from typing import Final

from trapline.arch.error_codes import PF_FETCH, PF_RESERVED, PF_USER, PF_WRITE
from trapline.arch.paging import PAGE, WRITE, Denied, NotMapped
from trapline.arch.registers import RFLAGS
from trapline.machine.linear import stack_address

from . import pages
from .arrival import arrival
from .attempt import Attempt
from .instruction import Instruction
from .tables import Access

_NULL_PAGE: Final = 0x1000
_PUSHES: Final = ("push", "pushf", "pushfd", "pushfq", "pusha", "pushad", "call", "enter")
_USER_HALF: Final = 1 << 47


def page_access(attempt: Attempt, code: int, address: int) -> Access:
    """Return the access that raised a page fault with this error code, which may not tell a fetch from a read."""
    fetches = not code & PF_WRITE and address == attempt.rip
    kind = code & (PF_WRITE | PF_USER) | (PF_FETCH if fetches else code & PF_FETCH)
    return Access(address, kind, bool(attempt.save.rflags & RFLAGS.AC and not code & PF_USER))


def page_fault(i: Instruction, address: int | None) -> str:
    """Say what was accessed, what denies it, and what is known of the address."""
    code = i.attempt.event.error_code or 0
    access = "fetch from" if code & PF_FETCH else "write to" if code & PF_WRITE else "read of"
    if address is None:
        return f"{access} an address that was not recorded"
    wanted = page_access(i.attempt, code, address)
    fetches = wanted.kind & PF_FETCH
    if fetches:
        access = "fetch from"
    denied = pages.why(i.attempt, *wanted)
    null = ", a null pointer" if address < _NULL_PAGE and not code & PF_RESERVED else ""
    text = f"{access} {address:#x}{null}" + (f" ({denied})" if denied else "")
    rules = _FETCH if fetches else _DATA
    return "; ".join([text, *(told for rule in rules if (told := rule(i, address)) is not None)])


def _arrival(i: Instruction, address: int) -> str | None:
    return arrival(i) if address == i.attempt.rip else None


def _gs(i: Instruction, address: int) -> str | None:
    """SWAPGS was missed, or executed twice (APM vol. 3, SWAPGS)."""
    save = i.attempt.save
    if save.cpl or i.bits != 64 or not any(each.segment == "gs" for each in i.operands()):
        return None
    kernel = save.kernel_gs_base
    if save.gs.base and not (save.gs.base < _USER_HALF <= kernel):
        return None
    return (
        f"it is accessed through GS in kernel code, and the base of GS is {save.gs.base:#x} (KERNEL_GS_BASE is "
        f"{kernel:#x}): GS_BASE was not set, or SWAPGS was missed or executed twice"
    )


def _direction(i: Instruction, address: int) -> str | None:
    """APM vol. 2, 3.1.6."""
    if not i.attempt.save.rflags & RFLAGS.DF or not i.decoded.is_string_instruction:
        return None
    return f"RFLAGS.DF is set, so that {i.name} runs downwards"


def _accessed(i: Instruction, address: int) -> str | None:
    """The CPU marks a descriptor as it loads it (APM vol. 2, 4.7.2)."""
    gdtr = i.attempt.save.gdtr
    if not (i.attempt.event.error_code or 0) & PF_WRITE or not gdtr.base <= address <= gdtr.base + gdtr.limit:
        return None
    if i.segment_operand is None and i.name not in ("jmp", "call", "retf", "iret", "iretd", "iretq"):
        return None
    selector = address - gdtr.base & ~7
    return f"the CPU sets the accessed bit of descriptor {selector:#x} as it loads it: its page must be writable"


def _overflow(i: Instruction, address: int) -> str | None:
    """A push into a page below one that can be written."""
    top = stack_address(i.attempt.save)
    if i.name not in _PUSHES or not 0 <= top - address <= PAGE:
        return None
    try:
        found = pages.denial(i.attempt, address, WRITE)
    except NotMapped:
        return None
    if found is None or found.fault.denied is not Denied.NOT_PRESENT:
        return None
    above = (address | PAGE - 1) + 1
    if i.attempt.translate(above, WRITE) is None:
        return f"the stack pointer, {top:#x}, does not point to a stack"
    return f"the stack overflowed: the stack pointer is {top:#x}, and the page below is not mapped"


_Rule = Callable[[Instruction, int], str | None]
_FETCH: Final[tuple[_Rule, ...]] = (_arrival,)
_DATA: Final[tuple[_Rule, ...]] = (_gs, _direction, _accessed, _overflow)
