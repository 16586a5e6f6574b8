"""Why an exception was raised at all, where state and instruction prove it."""

from collections.abc import Callable
from typing import Final

from trapline.arch.descriptors import Attribute, Selector, attributes
from trapline.arch.error_codes import PF_FETCH, PF_RESERVED, PF_USER, PF_WRITE, SELECTOR_IDT, describe_debug
from trapline.arch.events import EventType
from trapline.arch.registers import CR0, CR4
from trapline.arch.vectors import Vector

from . import pages
from .attempt import Attempt
from .evidence import Evidence
from .gates import describe
from .instruction import Instruction

_UNALIGNED: Final = ("movups", "movupd", "movdqu", "lddqu")
_ALIGNED: Final = ("fxsave", "fxsave64", "fxrstor", "fxrstor64", "cmpxchg16b")
_DELIBERATE: Final = ("ud2", "ud0", "ud1")
_IRETS: Final = {"iret": 2, "iretd": 4, "iretq": 8}
_NULL_PAGE: Final = 0x1000


def origin(evidence: Evidence, attempt: Attempt, address: int | None) -> str | None:
    """Say why the event of a attempt was raised; None: nothing proves it."""
    event = attempt.event
    if event.type == EventType.INTR:
        if not attempt.real and 8 <= event.vector < 16:
            return f"IRQ {event.vector - 8} on a vector of exceptions: the interrupt controller was not remapped"
        return None
    if event.type != EventType.EXCEPTION:
        return None
    if event.vector == Vector.PF:
        return _page_fault(attempt, event.error_code or 0, address)
    if event.vector == Vector.DB:
        return describe_debug(attempt.save.dr6)
    rule = _RULES.get(event.vector)
    return None if rule is None else rule(Instruction(attempt, evidence.gprs))


def _page_fault(attempt: Attempt, code: int, address: int | None) -> str:
    access = "fetch from" if code & PF_FETCH else "write to" if code & PF_WRITE else "read of"
    if address is None:
        return f"{access} an address that was not recorded"
    fetches = not code & PF_WRITE and address == attempt.rip
    if fetches:
        access = "fetch from"
    wanted = code & (PF_WRITE | PF_USER) | (PF_FETCH if fetches else code & PF_FETCH)
    reason = pages.why(attempt, address, wanted)
    null = ", a null pointer" if address < _NULL_PAGE and not code & (PF_RESERVED | PF_FETCH) and not fetches else ""
    return f"{access} {address:#x}{null}" + (f" ({reason})" if reason else "")


def _undefined(i: Instruction) -> str | None:
    save = i.attempt.save
    if not i.valid:
        return "the bytes at RIP are no instruction"
    if i.name in _DELIBERATE:
        return f"{i.name}, which is there to raise it"
    features = i.features
    sse = any(feature.startswith(("SSE", "SSSE")) for feature in features) and i.is_legacy
    if sse and save.cr0 & CR0.EM:
        return f"{i.name} is an SSE instruction, and CR0.EM is set: SSE is disabled"
    if sse and not save.cr4 & CR4.OSFXSR:
        return f"{i.name} is an SSE instruction, and CR4.OSFXSR is clear: SSE is disabled"
    if any(feature.startswith("AVX") for feature in features) and not save.cr4 & CR4.OSXSAVE:
        return f"{i.name} is an AVX instruction, and CR4.OSXSAVE is clear: AVX is disabled"
    return None


def _not_available(i: Instruction) -> str | None:
    for bit, name in ((CR0.TS, "CR0.TS"), (CR0.EM, "CR0.EM")):
        if i.valid and i.attempt.save.cr0 & bit:
            return f"{i.name} needs the FPU, and {name} is set"
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
        return f"{i.name} at CPL {save.cpl} is privileged"
    return _address(i) or _special(i)


def _selector(i: Instruction, code: int) -> str:
    selector = code & Selector.REFERENCE
    return f"{i.name} with the selector {selector:#x}: {describe(i.attempt, selector, i.attempt.descriptor(selector))}"


def _address(i: Instruction) -> str | None:
    """The address of an operand or of a branch's target."""
    canonical = i.attempt.space.is_canonical
    target = i.stack(0, 8) if i.name == "ret" and i.bits == 64 else None
    if i.name in ("jmp", "call") and i.bits == 64:
        target = i.value(0)
    if target is not None and not canonical(target):
        return f"{i.name} to {target:#x}, which is not a canonical address"
    vector = any(feature.startswith(("SSE", "SSSE")) for feature in i.features) and i.is_legacy
    for operand in i.operands():
        if not canonical(operand.address):
            return f"{i.name} accesses {operand.address:#x}, which is not a canonical address"
        aligned = i.name in _ALIGNED or (vector and operand.size == 16 and i.name not in _UNALIGNED)
        if aligned and operand.address % 16:
            return f"{i.name} needs an address aligned to 16, and {operand.address:#x} is not"
    return None


def _special(i: Instruction) -> str | None:
    if i.name in ("wrmsr", "rdmsr"):
        return f"{i.name} of MSR {i.ecx:#x}, which refuses it"
    if i.name == "mov" and i.control is not None:
        value = i.value(1)
        return None if value is None else f"mov to {i.control}: the CPU refuses the value {value:#x}"
    return None


def _bad_frame(i: Instruction) -> str | None:
    """What the frame of an IRET has that it must not have (APM vol. 3, IRET; vol. 2, 8.7.5, 8.9.5)."""
    width = _IRETS[i.name]
    rip, cs = i.stack(0, width), i.stack(1, width)
    save = i.attempt.save
    if rip is None or cs is None:
        return f"{i.name}, whose frame at RSP {save.rsp:#x} cannot be read"
    if i.attempt.real:
        return None
    selector = cs & 0xFFFF
    descriptor = i.attempt.descriptor(selector)
    frame = f"the frame of {i.name} at RSP {save.rsp:#x} is bad: "
    what = describe(i.attempt, selector, descriptor)
    if descriptor is None or not attributes(descriptor) & Attribute.S or not attributes(descriptor) & Attribute.CODE:
        return f"{frame}its CS, {selector:#x}, is {what}"
    if not attributes(descriptor) & Attribute.P:
        return f"{frame}its CS, {selector:#x}, is {what}"
    if selector & Selector.RPL < save.cpl:
        return f"{frame}its CS, {selector:#x}, is of a higher privilege than CPL {save.cpl}"
    dpl = attributes(descriptor) >> 5 & 3
    if not attributes(descriptor) & Attribute.CONFORMING and dpl != selector & Selector.RPL:
        return f"{frame}its CS, {selector:#x}, is {what}, and its RPL is not the DPL"
    long = bool(attributes(descriptor) & Attribute.L) and i.attempt.long
    if long and not i.attempt.space.is_canonical(rip):
        return f"{frame}its RIP, {rip:#x}, is not a canonical address"
    return _bad_stack(i, frame, width, selector, long)


def _bad_stack(i: Instruction, frame: str, width: int, selector: int, long: bool) -> str | None:
    level = selector & Selector.RPL
    if level == i.attempt.save.cpl and width != 8:
        return None
    ss = i.stack(4, width)
    if ss is None:
        return None
    ss &= 0xFFFF
    null = not ss & Selector.REFERENCE
    if null and long and level < 3 and ss & Selector.RPL == level:
        return None
    descriptor = i.attempt.descriptor(ss)
    what = describe(i.attempt, ss, descriptor)
    if null or descriptor is None:
        return f"{frame}its SS, {ss:#x}, is {what}"
    kept = attributes(descriptor)
    wanted = Attribute.S | Attribute.WRITABLE
    if kept & (wanted | Attribute.CODE) != wanted:
        return f"{frame}its SS, {ss:#x}, is {what}, not writable data"
    if kept >> 5 & 3 != level or ss & Selector.RPL != level:
        return f"{frame}its SS, {ss:#x}, is {what}, but the CPL is to be {level}"
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
