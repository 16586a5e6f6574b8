"""Null selectors where the CPU takes none: CS, SS and TR (APM vol. 2, 4.5.1; vol. 3, CALL far, JMP far, MOV, LTR)."""

from typing import Final

from trapline.arch.descriptors import Selector
from trapline.arch.registers import RFLAGS

from .instruction import Instruction

_SELECTOR_SIZE: Final = 2


def null_selector(i: Instruction) -> str | None:
    """Say which register would have got a null selector, which raised #GP(0)."""
    save = i.attempt.save
    if i.attempt.real or save.rflags & RFLAGS.VM:
        return None
    register, selector = _loaded(i)
    if selector is None or selector & Selector.REFERENCE:
        return None
    if register == "SS" and i.attempt.bits == 64 and save.cpl < 3 and selector & Selector.RPL == save.cpl:
        return None
    return f"{i.whole_name} loads {register} with {selector:#x}, which is null"


def _loaded(i: Instruction) -> tuple[str, int | None]:
    """Return the segment register that an instruction loads, and with which selector; None: it is not known."""
    if i.is_far:
        return "CS", i.far_selector if i.far_selector is not None else _in_memory(i)
    if i.name == "ltr":
        return "TR", i.value(0)
    if i.name == "lss":
        return "SS", _in_memory(i)
    if i.segment_operand != "ss":
        return "", None
    return "SS", i.stack(0, i.bits // 8) if i.name == "pop" else i.value(1)


def _in_memory(i: Instruction) -> int | None:
    """Return the selector of a far pointer in memory, which is after its offset."""
    operand = next(i.operands(), None)
    return None if operand is None else i.attempt.read(operand.address + operand.size - _SELECTOR_SIZE, _SELECTOR_SIZE)
