"""Why the first event of a chain was raised, where the state and the instruction prove it."""

from collections.abc import Callable
from typing import Final

from trapline.arch.descriptors import DPL_SHIFT, Attribute, Selector, attributes
from trapline.arch.error_codes import PF_FETCH, PF_RESERVED, PF_USER, PF_WRITE, SELECTOR_IDT, describe_debug
from trapline.arch.events import EventType
from trapline.arch.registers import CR0, CR4, RFLAGS
from trapline.arch.vectors import Vector

from . import pages
from .attempt import Attempt
from .evidence import Evidence
from .instruction import Instruction
from .segments import describe
from .tables import Access

_UNALIGNED: Final = ("movups", "movupd", "movdqu", "lddqu")
_ALIGNED: Final = ("fxsave", "fxsave64", "fxrstor", "fxrstor64", "cmpxchg16b")
_DELIBERATE: Final = ("ud2", "ud0", "ud1")
_IRETS: Final = {"iret": 2, "iretd": 4, "iretq": 8}
_NULL_PAGE: Final = 0x1000


def reason(evidence: Evidence, attempt: Attempt) -> str | None:
    """Say why the attempt's event was raised; None: nothing proves it."""
    event = attempt.event
    if event.type == EventType.INTR:
        if not attempt.real and 8 <= event.vector < 16:
            return f"IRQ {event.vector - 8} arrived at an exception vector: the interrupt controller was not remapped"
        return None
    if event.type != EventType.EXCEPTION:
        return None
    if event.vector == Vector.PF:
        return _page_fault(attempt, event.error_code or 0, evidence.first_address)
    if event.vector == Vector.DB:
        return describe_debug(attempt.save.dr6)
    rule = _RULES.get(event.vector)
    return None if rule is None else rule(Instruction(attempt, evidence.gprs))


def _page_fault(attempt: Attempt, code: int, address: int | None) -> str:
    access = "fetch from" if code & PF_FETCH else "write to" if code & PF_WRITE else "read of"
    if address is None:
        return f"{access} an address that was not recorded"
    wanted = page_access(attempt, code, address)
    fetches = wanted.kind & PF_FETCH
    if fetches:
        access = "fetch from"
    denied = pages.why(attempt, *wanted)
    null = ", a null pointer" if address < _NULL_PAGE and not code & PF_RESERVED and not fetches else ""
    return f"{access} {address:#x}{null}" + (f" ({denied})" if denied else "")


def page_access(attempt: Attempt, code: int, address: int) -> Access:
    """Return the access that raised a page fault with this error code, which may not tell a fetch from a read."""
    fetches = not code & PF_WRITE and address == attempt.rip
    kind = code & (PF_WRITE | PF_USER) | (PF_FETCH if fetches else code & PF_FETCH)
    return Access(address, kind, bool(attempt.save.rflags & RFLAGS.AC and not code & PF_USER))


def _undefined(i: Instruction) -> str | None:
    save = i.attempt.save
    if not i.valid:
        return "the bytes at RIP are not a valid instruction"
    if i.name in _DELIBERATE:
        return f"{i.name} always raises #UD"
    if i.is_sse and save.cr0 & CR0.EM:
        return f"{i.name} is an SSE instruction, and CR0.EM is set: SSE is disabled"
    if i.is_sse and not save.cr4 & CR4.OSFXSR:
        return f"{i.name} is an SSE instruction, and CR4.OSFXSR is clear: SSE is disabled"
    if i.is_avx and not save.cr4 & CR4.OSXSAVE:
        return f"{i.name} is an AVX instruction, and CR4.OSXSAVE is clear: AVX is disabled"
    return None


def _not_available(i: Instruction) -> str | None:
    for bit, name in ((CR0.TS, "CR0.TS"), (CR0.EM, "CR0.EM")):
        if i.valid and i.attempt.save.cr0 & bit:
            return f"{i.name} uses FPU or SSE state, and {name} is set"
    return None


def _divide(i: Instruction) -> str | None:
    if not i.valid or i.name not in ("div", "idiv"):
        return None
    divisor = i.value(0)
    if divisor is None:
        return None
    return f"{i.name} by zero" if divisor == 0 else f"{i.name} by {divisor:#x}: the quotient is too large"


def _protection(i: Instruction) -> str | None:
    save, code = i.attempt.save, i.attempt.event.error_code or 0
    if not i.attempt.space.is_canonical(i.attempt.rip):
        return f"execution went to {i.attempt.rip:#x}, which is not a canonical address"
    if not i.valid:
        return None
    if i.name in _IRETS:
        return _bad_frame(i)
    if code & ~3:
        return None if code & SELECTOR_IDT else _selector(i, code)
    if save.cpl and i.is_privileged:
        return f"{i.name} is a privileged instruction, and the CPL is {save.cpl}"
    return _address(i) or _special(i)


def _selector(i: Instruction, code: int) -> str:
    selector = code & Selector.REFERENCE
    return f"{i.name} uses the selector {selector:#x}, which is {describe(i.attempt, selector)}"


def _address(i: Instruction) -> str | None:
    """The address of an operand or of a branch target."""
    canonical = i.attempt.space.is_canonical
    target = i.stack(0, 8) if i.name == "ret" and i.bits == 64 else None
    if i.name in ("jmp", "call") and i.bits == 64:
        target = i.value(0)
    if target is not None and not canonical(target):
        return f"{i.name} to {target:#x}, which is not a canonical address"
    for operand in i.operands():
        if not canonical(operand.address):
            return f"{i.name} accesses {operand.address:#x}, which is not a canonical address"
        aligned = i.name in _ALIGNED or (i.is_sse and operand.size == 16 and i.name not in _UNALIGNED)
        if aligned and operand.address % 16:
            return f"{i.name} needs an address aligned to 16 bytes, and {operand.address:#x} is not"
    return None


def _special(i: Instruction) -> str | None:
    if i.name in ("wrmsr", "rdmsr"):
        return f"the CPU rejects {i.name} of MSR {i.ecx:#x}"
    if i.name == "mov" and i.control is not None:
        value = i.value(1)
        return None if value is None else f"the CPU rejects the value {value:#x} for {i.control}"
    return None


def _bad_frame(i: Instruction) -> str | None:
    """A value that IRET may not pop (APM vol. 3, IRET; vol. 2, 8.7.5, 8.9.5)."""
    width = _IRETS[i.name]
    rip, cs = i.stack(0, width), i.stack(1, width)
    save = i.attempt.save
    if rip is None or cs is None:
        return f"the frame that {i.name} pops, at RSP {save.rsp:#x}, cannot be read"
    if i.attempt.real:
        return None
    selector = cs & 0xFFFF
    descriptor = i.attempt.descriptor(selector)
    popped = f"{i.name} pops CS {selector:#x}, which is {describe(i.attempt, selector)}"
    kept = 0 if descriptor is None else attributes(descriptor)
    valid = Attribute.S | Attribute.CODE | Attribute.P
    if kept & valid != valid:
        return popped
    rpl = selector & Selector.RPL
    if rpl < save.cpl:
        return f"{i.name} pops CS {selector:#x}, whose RPL is below the CPL, {save.cpl}"
    if not kept & Attribute.CONFORMING and kept >> DPL_SHIFT & 3 != rpl:
        return f"{popped}, but its RPL is {rpl}"
    long = bool(kept & Attribute.L) and i.attempt.long
    if long and not i.attempt.space.is_canonical(rip):
        return f"{i.name} pops RIP {rip:#x}, which is not a canonical address"
    return _bad_stack(i, width, rpl, long)


def _bad_stack(i: Instruction, width: int, level: int, long: bool) -> str | None:
    """A stack segment that IRET may not pop for the new CPL."""
    if level == i.attempt.save.cpl and width != 8:
        return None
    ss = i.stack(4, width)
    if ss is None:
        return None
    ss &= 0xFFFF
    if not ss & Selector.REFERENCE and long and level < 3 and ss & Selector.RPL == level:
        return None
    descriptor = i.attempt.descriptor(ss)
    popped = f"{i.name} pops SS {ss:#x}, which is {describe(i.attempt, ss)}"
    if descriptor is None:
        return popped
    kept = attributes(descriptor)
    valid = Attribute.S | Attribute.WRITABLE
    if kept & (valid | Attribute.CODE) != valid:
        return f"{popped}, not writable data"
    if kept >> DPL_SHIFT & 3 != level or ss & Selector.RPL != level:
        return f"{popped}, but the new CPL is {level}"
    return None


def _stack(i: Instruction) -> str | None:
    code = i.attempt.event.error_code or 0
    if not i.valid:
        return None
    if code & ~3:
        return _selector(i, code)
    if not i.attempt.space.is_canonical(i.attempt.save.rsp):
        return f"{i.name} uses the stack, and RSP is {i.attempt.save.rsp:#x}, which is not a canonical address"
    return next(
        (
            f"{i.name} accesses {operand.address:#x}, which is not a canonical address"
            for operand in i.operands()
            if operand.stack and not i.attempt.space.is_canonical(operand.address)
        ),
        None,
    )


def _segment(i: Instruction) -> str | None:
    code = i.attempt.event.error_code or 0
    if not i.valid or not code & ~3 or code & SELECTOR_IDT:
        return None
    return _bad_frame(i) if i.name in _IRETS else _selector(i, code)


_RULES: Final[dict[int, Callable[[Instruction], str | None]]] = {
    Vector.DE: _divide,
    Vector.UD: _undefined,
    Vector.NM: _not_available,
    Vector.TS: _segment,
    Vector.NP: _segment,
    Vector.SS: _stack,
    Vector.GP: _protection,
}
