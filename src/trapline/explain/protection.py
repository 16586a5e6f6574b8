"""Why an instruction raised #GP, #SS, #NP or #TS."""

from collections.abc import Callable
from typing import Final

from trapline.arch.descriptors import DPL_SHIFT, Attribute, Selector, attributes
from trapline.arch.error_codes import SELECTOR_IDT
from trapline.arch.registers import RFLAGS

from .arrival import arrival
from .control import control_register, extended_control, model_specific
from .frames import bad_frame, returns
from .instruction import Instruction
from .null_selectors import null_selector
from .segments import describe

_PORTS: Final = ("in", "out", "insb", "insw", "insd", "outsb", "outsw", "outsd")


def protection(i: Instruction) -> str | None:
    """Say why #GP was raised (APM vol. 2, 8.2.14)."""
    code = i.attempt.event.error_code or 0
    if not i.attempt.space.is_canonical(i.attempt.rip):
        return _stray(i)
    if not i.valid:
        return None
    if returns(i):
        return bad_frame(i)
    if code & SELECTOR_IDT:
        return _gate(i)
    if code & ~3:
        return _selector(i, code)
    return next((told for rule in _PROTECTION if (told := rule(i)) is not None), None)


def _stray(i: Instruction) -> str:
    """APM vol. 2, 5.3.1: a processor may raise the exception at the target of the branch."""
    told, came = f"execution went to {i.attempt.rip:#x}, which is not a canonical address", arrival(i)
    return told if came is None else f"{told}; {came}"


def stack(i: Instruction) -> str | None:
    """Say why #SS was raised (APM vol. 2, 8.2.13)."""
    code = i.attempt.event.error_code or 0
    if not i.valid:
        return None
    if code & ~3:
        return bad_frame(i) if returns(i) else _selector(i, code)
    if not i.attempt.space.is_canonical(i.attempt.save.rsp):
        return f"{i.name} uses the stack, and RSP is {i.attempt.save.rsp:#x}, which is not a canonical address"
    for operand in i.operands():
        if operand.segment == "ss" and not i.attempt.space.is_canonical(operand.address):
            return f"{i.name} accesses {operand.address:#x}, which is not a canonical address"
    return _segment_access(i)


def segment(i: Instruction) -> str | None:
    """Say why #NP or #TS was raised (APM vol. 2, 8.2.11, 8.2.12)."""
    code = i.attempt.event.error_code or 0
    if not i.valid or code & SELECTOR_IDT:
        return None
    if returns(i):
        return bad_frame(i)
    return _selector(i, code) if code & ~3 else None


def _gate(i: Instruction) -> str | None:
    """INT n through a gate (APM vol. 2, 8.7.4). The number of the vector is the instruction's."""
    vector = {"int3": 3, "into": 4}.get(i.name, i.decoded.immediate8 if i.name == "int" else None)
    if vector is None:
        return None
    attempt, cpl = i.attempt, i.attempt.save.cpl
    idtr, offset = attempt.save.idtr, vector * attempt.gate_size
    if offset + attempt.gate_size - 1 > idtr.limit:
        return f"INT {vector:#x} needs entry {vector:#x} of the IDT, which is beyond IDTR.limit {idtr.limit:#x}"
    gate = attempt.read(idtr.base + offset, 8)
    if gate is None:
        return None
    dpl = attributes(gate) >> DPL_SHIFT & 3
    if gate and dpl < cpl:
        return f"INT {vector:#x} goes through entry {vector:#x} of the IDT, whose DPL is {dpl}, at CPL {cpl}"
    return f"INT {vector:#x} needs entry {vector:#x} of the IDT, which is empty" if not gate else None


def _selector(i: Instruction, code: int) -> str:
    selector = code & Selector.REFERENCE
    return f"{i.whole_name} uses the selector {selector:#x}, which is {describe(i.attempt, selector)}"


def _privileged(i: Instruction) -> str | None:
    """APM vol. 2, 3.1.6, 6.2; vol. 1, 3.8.3."""
    save = i.attempt.save
    if not save.cpl or not i.is_privileged:
        return None
    if i.name in _PORTS:
        iopl = (save.rflags & RFLAGS.IOPL) >> RFLAGS.IOPL_SHIFT
        return f"{i.name} at CPL {save.cpl}: RFLAGS.IOPL is {iopl}, and the I/O map of the TSS does not permit the port"
    return f"{i.name} is a privileged instruction, and the CPL is {save.cpl}"


def _branch(i: Instruction) -> str | None:
    """APM vol. 2, 5.3.1."""
    target = i.stack(0, 8) if i.name == "ret" and i.bits == 64 else None
    if i.name in ("jmp", "call") and i.bits == 64:
        target = i.value(0)
    if target is not None and not i.attempt.space.is_canonical(target):
        return f"{i.name} to {target:#x}, which is not a canonical address"
    return None


def _operand(i: Instruction) -> str | None:
    """APM vol. 2, 5.3.1; vol. 1, 4.8.2."""
    for operand in i.operands():
        if not i.attempt.space.is_canonical(operand.address):
            return f"{i.name} accesses {operand.address:#x}, which is not a canonical address"
        if i.needs_alignment and operand.address % 16:
            return f"{i.name} needs an address aligned to 16 bytes, and {operand.address:#x} is not"
    return None


def _segment_access(i: Instruction) -> str | None:
    """A segment that is null, or too short (APM vol. 2, 4.5.1, 4.12)."""
    save = i.attempt.save
    if i.bits == 64 or i.attempt.real or save.rflags & RFLAGS.VM:
        return None
    for operand in i.operands():
        register = getattr(save, operand.segment)
        name, end = operand.segment.upper(), operand.offset + max(operand.size, 1) - 1
        if not register.selector & Selector.REFERENCE and operand.segment != "cs":
            return f"{i.name} accesses memory through {name}, which is null"
        down = register.attributes & (Attribute.CODE | Attribute.EXPAND_DOWN) == Attribute.EXPAND_DOWN
        if end > register.limit and not down:
            return f"{i.name} accesses offset {operand.offset:#x}, beyond the limit of {name}, {register.limit:#x}"
    return None


_PROTECTION: Final[tuple[Callable[[Instruction], str | None], ...]] = (
    _privileged, _branch, _operand, _segment_access, null_selector, control_register, model_specific, extended_control,
)  # fmt: skip
