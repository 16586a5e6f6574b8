"""The stack that a delivery pushes on (APM 8.6, 8.7.3, 8.9.3), and what was on it."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from trapline.arch.delivery import Delivered, checks
from trapline.arch.delivery.access import pushed_flags
from trapline.arch.descriptors import GateType, base, gate_type
from trapline.arch.paging import READ, USER, WRITE
from trapline.arch.registers import RFLAGS
from trapline.explain import pages
from trapline.explain.attempt import Attempt, Slot
from trapline.explain.instruction import Namer
from trapline.machine.linear import stack_address

from .step import Drawn, read_entry
from .values import Stack, StackRow, State, recorded

_HELD: Final = 8
"""Values above the stack pointer that are shown."""
_PUSH: Final = (checks.PUSH_ADDRESS, checks.PUSH_LIMIT, checks.PUSH_PAGE)
_WIDE: Final = ("SS", "RSP", "RFLAGS", "CS", "RIP")
_LEGACY: Final = ("SS", "ESP", "EFLAGS", "CS", "EIP")
_V86: Final = ("GS", "FS", "DS", "ES")


def pushed_stack(drawn: Drawn, name: Namer | None) -> Stack | None:
    """Return the stack with the frame of a delivery that came as far as to push; None: it did not."""
    attempt, failed = drawn.attempt, drawn.failed
    if failed is not None and failed.check not in _PUSH:
        return None
    slot = attempt.slot()
    pointer = _pointer(attempt, slot)
    width = _width(attempt)
    names = _names(attempt, slot)
    values = drawn.outcome.frame.values if isinstance(drawn.outcome, Delivered) else _values(attempt, names)
    first = (pointer & ~0xF if attempt.long else pointer) - width
    access = WRITE | (USER if attempt.save.cpl == 3 and slot is None else 0)
    rows = []
    for number, (text, value) in enumerate(zip(names, values, strict=False)):
        gva = first - number * width & attempt.space.mask
        wrong = recorded(partial(pages.why, attempt, gva, access))
        rows.append(StackRow(gva, value & (1 << 8 * width) - 1, text, True, wrong))
    held = () if slot is not None else _held(attempt, pointer, width, name)
    return Stack(
        "RSP" if slot is None else slot.name,
        drawn.event,
        pointer,
        width,
        (*reversed(tuple(held)), *rows),
        drawn.wrong() or None,
    )


def interrupted_stack(attempt: Attempt, name: Namer | None) -> Stack:
    """Return the stack of the code that was interrupted."""
    pointer, width = stack_address(attempt.save), attempt.bits // 8
    return Stack("RSP", "", pointer, width, tuple(reversed(tuple(_held(attempt, pointer, width, name)))), None)


def _held(attempt: Attempt, pointer: int, width: int, name: Namer | None) -> Iterator[StackRow]:
    for number in range(_HELD):
        gva = pointer + number * width & attempt.space.mask
        value = read_entry(attempt, gva, width)
        if value is State.UNREADABLE:
            yield StackRow(gva, None, "", False, recorded(partial(pages.why, attempt, gva, READ)))
        if isinstance(value, State):
            return
        yield StackRow(gva, value, (None if name is None else name(value)) or "", False)


def _pointer(attempt: Attempt, slot: Slot | None) -> int:
    """Return the linear address of the top of the stack."""
    if slot is None:
        return stack_address(attempt.save)
    pointer = attempt.read(slot.gva, slot.width) or 0
    if attempt.long:
        return pointer
    descriptor = attempt.descriptor(attempt.read(slot.gva + slot.width, 2) or 0)
    return (0 if descriptor is None else base(descriptor)) + pointer & attempt.space.mask


def _width(attempt: Attempt) -> int:
    if attempt.long:
        return 8
    return 4 if not attempt.real and gate_type(attempt.gate) & GateType.WIDE else 2


def _names(attempt: Attempt, slot: Slot | None) -> tuple[str, ...]:
    """Return what is pushed, in the order of the pushes."""
    code = () if attempt.event.error_code is None or attempt.real else ("error code",)
    if attempt.long:
        return (*_WIDE, *code)
    if attempt.real:
        return ("FLAGS", "CS", "IP")
    v86 = _V86 if attempt.save.rflags & RFLAGS.VM else ()
    return (*v86, *(_LEGACY if slot is not None else _LEGACY[2:]), *code)


def _values(attempt: Attempt, names: tuple[str, ...]) -> list[int]:
    """Return the values of a frame that could not be pushed."""
    save, event = attempt.save, attempt.event
    flags = pushed_flags(save.rflags, event, sets_rf=True, interrupts_keep_rf=True)
    special = {"RSP": save.rsp, "ESP": save.rsp, "RIP": save.rip, "EIP": save.rip, "IP": save.rip}
    special |= dict.fromkeys(("RFLAGS", "EFLAGS", "FLAGS"), flags)
    special["error code"] = event.error_code or 0
    return [special[name] if name in special else getattr(save, name.lower()).selector for name in names]
