"""What IRET and RETF pop, and why it raised an exception (APM vol. 3, IRET, RET far; vol. 2, 8.7.5, 8.9.5)."""

from typing import Final, NamedTuple

from trapline.arch.bits import M16
from trapline.arch.descriptors import BACK_LINK, DPL_SHIFT, Attribute, Selector, attributes
from trapline.arch.paging import FETCH, USER
from trapline.arch.registers import EFER, RFLAGS

from .instruction import Instruction
from .segments import describe

_WIDTHS: Final = {"iret": 2, "iretw": 2, "iretd": 4, "iretq": 8}


class Frame(NamedTuple):
    """The values that a return pops."""

    at: int
    """Bytes above the stack pointer."""
    width: int
    """Bytes of a value."""
    rip: int
    cs: int
    flags: int | None
    """None: of RETF, which pops none."""


def returns(i: Instruction) -> bool:
    """Say whether an instruction pops a frame."""
    return i.name in _WIDTHS or i.name == "retf"


def bad_frame(i: Instruction) -> str | None:
    """Say what is wrong with the frame that an instruction pops; None: nothing that is known."""
    save = i.attempt.save
    if i.name in _WIDTHS and save.rflags & RFLAGS.NT and not i.attempt.real:
        return _nested_task(i)
    width = _WIDTHS.get(i.name) or i.popped // 2
    if not width:
        return None
    frame = _frame(i, 0, width)
    if frame is None:
        return f"the frame that {i.name} pops, at RSP {save.rsp:#x}, cannot be read"
    if i.attempt.real:
        return None
    wrong = _wrong(i, frame)
    if wrong is None or frame.flags is None:
        return wrong
    if i.bits == 64 and width < 8 and _is_good(i, _frame(i, 0, 8)):
        return f"{i.name} pops values of {width * 8} bits, and the frame has 64: in 64-bit code it takes iretq"
    higher = _frame(i, width, width)
    if higher is not None and _is_good(i, higher):
        code = i.stack(0, width)
        return (
            f"the error code, {code:#x}, is still on the stack: the frame of {i.name} is {width} bytes higher ({wrong})"
        )
    return wrong


def _nested_task(i: Instruction) -> str:
    """APM vol. 2, 12.4.1: in long mode there are no tasks."""
    save = i.attempt.save
    if save.efer & EFER.LMA:
        return f"RFLAGS.NT, nested task, is set, and in long mode {i.name} cannot return to another task"
    link = i.attempt.read(save.tr.base + BACK_LINK, 2)
    task = "the back link of its TSS cannot be read"
    if link is not None:
        task = f"the back link of the TSS is {link:#x}, which is {describe(i.attempt, link)}"
    if not save.tr.selector & Selector.REFERENCE:
        task = "no TSS is loaded"
    return f"RFLAGS.NT, nested task, is set: {i.name} returns to the previous task, and {task}"


def _frame(i: Instruction, at: int, width: int) -> Frame | None:
    first = at // width
    rip, cs = i.stack(first, width), i.stack(first + 1, width)
    if rip is None or cs is None:
        return None
    return Frame(at, width, rip, cs & M16, None if i.name == "retf" else i.stack(first + 2, width))


def _is_good(i: Instruction, frame: Frame | None) -> bool:
    """Return whether a frame looks like one that an exception pushed: its flags, its code and its stack are valid."""
    if frame is None or frame.flags is None or not frame.flags & RFLAGS.ALWAYS_ONE or frame.flags & RFLAGS.ALWAYS_ZERO:
        return False
    access = FETCH | (USER if frame.cs & Selector.RPL == 3 else 0)
    return _wrong(i, frame) is None and i.attempt.translate(frame.rip, access) is not None


def _wrong(i: Instruction, frame: Frame) -> str | None:
    save, selector = i.attempt.save, frame.cs
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
    if long and not i.attempt.space.is_canonical(frame.rip):
        return f"{i.name} pops RIP {frame.rip:#x}, which is not a canonical address"
    return _bad_stack(i, frame, rpl, long)


def _bad_stack(i: Instruction, frame: Frame, level: int, long: bool) -> str | None:
    """A stack segment that may not be popped for the new CPL."""
    iretq = frame.width == 8 and frame.flags is not None
    if level == i.attempt.save.cpl and not iretq:
        return None
    ss = i.stack(frame.at // frame.width + (3 if frame.flags is None else 4), frame.width)
    if ss is None:
        return None
    ss &= M16
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
