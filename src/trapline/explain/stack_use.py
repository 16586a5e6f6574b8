"""Stacks that are used in a way that overwrites them: an IST stack in use, and the red zone of kernel code."""

from collections.abc import Iterator
from typing import Any, Final

from trapline.arch.descriptors import Attribute, attributes
from trapline.arch.paging import PAGE
from trapline.arch.registers import RFLAGS
from trapline.asm.decoder import new_decoder

from .instruction import Instruction

_FRAME: Final = 40
"""Bytes of a frame of 64 bits (APM vol. 2, 8.9.3)."""
_CS, _FLAGS = -32, -24
"""Offsets of its members from the top of the stack."""
_BEFORE: Final = 48
"""Bytes of code before RIP that are decoded."""
_RED_ZONE: Final = 128
"""Bytes below RSP that a leaf function of the System V ABI may use (psABI AMD64, 3.2.2)."""


def ist_in_use(i: Instruction) -> str | None:
    """The delivery starts at the top of a stack that the interrupted code is on (APM vol. 2, 8.9.3)."""
    attempt, save = i.attempt, i.attempt.save
    slot = attempt.slot()
    if not attempt.long or save.cpl or slot is None or not slot.name.startswith("IST"):
        return None
    top = (attempt.read(slot.gva, slot.width) or 0) & ~0xF
    if not top - PAGE <= save.rsp <= top - _FRAME:
        return None
    selector, flags = attempt.read(top + _CS, 8), attempt.read(top + _FLAGS, 8)
    descriptor = None if selector is None or selector >> 16 else attempt.descriptor(selector)
    wanted = Attribute.S | Attribute.CODE | Attribute.P
    if descriptor is None or attributes(descriptor) & wanted != wanted or not (flags or 0) & RFLAGS.ALWAYS_ONE:
        return None
    return (
        f"{slot.name}, {top:#x}, is the top of the stack in use (RSP is {save.rsp:#x}): the delivery overwrites the "
        "frame of the exception that is being handled"
    )


def red_zone(i: Instruction) -> str | None:
    """Kernel code that reads values back from below RSP, where an interrupt or exception at CPL 0 pushes its frame."""
    if i.bits != 64 or i.attempt.save.cpl:
        return None
    for instruction in _before(i):
        below = -(instruction.memory_displacement - (1 << 64)) if instruction.memory_displacement >> 63 else 0
        loads = i.reads_memory(instruction) and instruction.memory_base == i.rsp_number
        if loads and 0 < below <= _RED_ZONE:
            return (
                f"the code uses the red zone ([rsp-{below:#x}] at {instruction.ip:#x}), which each interrupt at CPL 0 "
                "overwrites: kernels are built with -mno-red-zone"
            )
    return None


def _before(i: Instruction) -> Iterator[Any]:
    """Yield the instructions that lead to RIP, and the one there: the longest run that ends at it."""
    code = i.attempt.read(i.attempt.rip - _BEFORE & i.attempt.space.mask, _BEFORE)
    data = b"" if code is None else code.to_bytes(_BEFORE, "little")
    for start in range(len(data)):
        found = list(new_decoder(data[start:], i.bits, i.attempt.rip - len(data) + start))
        if all(not each.is_invalid for each in found):
            yield from found
            break
    yield i.decoded
