"""The task switch of an event whose gate is a task gate (APM vol. 2, 12.5)."""

from typing import Final, NamedTuple

from trapline.arch import descriptors
from trapline.arch.bits import M16, M32
from trapline.arch.descriptors import (
    ACCESSED,
    ACCESSED_BYTE,
    BACK_LINK,
    DPL_SHIFT,
    VIRTUAL_8086,
    Attribute,
    SegmentState,
    Selector,
    SystemType,
    task_fields,
)
from trapline.arch.paging import IMPLICIT, WRITE
from trapline.arch.registers import CR0, DR7, RFLAGS, Gprs
from trapline.arch.vmcb import SaveArea, Segment, load_segment, segment_state

from . import checks
from .access import TSS, Delivery
from .outcome import CheckFailed, Failed, Write

_GPRS: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
_IN_SAVE: Final = ("rax", "rsp")
_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs")
"""Both in the order of a TSS."""
_LOADED: Final = ("cs", "ss", "es", "ds", "fs", "gs")
_NOTHING: Final = SegmentState(0, 0, 0, 0)
_LOCAL: Final = DR7.L0 | DR7.L1 | DR7.L2 | DR7.L3 | DR7.LE


class Switched(NamedTuple):
    """The new task is about to start, or one of its segments or its stack raises an exception in it."""

    save: SaveArea
    gprs: Gprs
    """Without RAX and RSP, which are in the save area."""
    writes: list[Write]
    """What was stored, in order."""
    failed: Failed | None


class Old(NamedTuple):
    """The outgoing task's part: nothing can fail after it but what the new task raises."""

    values: dict[int, int]
    """Fields of the new TSS by their offsets."""
    tr: SegmentState


def leave(d: Delivery, gprs: Gprs, selector: int) -> Old:
    """Save the outgoing task in its TSS, mark the new one busy and link them; raises CheckFailed and PageFault.

    `selector` is that of the new TSS, which the checks before have found available and present.
    """
    descriptor, where = d.descriptor(selector, checks.TASK_LIMIT)
    tr = SegmentState(
        selector,
        descriptors.attributes(descriptor) | SystemType.BUSY,
        descriptors.limit(descriptor),
        descriptors.base(descriptor),
    )
    new = task_fields(tr.attributes)
    if tr.limit < new.size - 1:
        raise CheckFailed(checks.TASK_SIZE, selector, limit=tr.limit)
    save, old = d.save, task_fields(d.save.tr.attributes)
    fields = {new.ip: new.width, new.flags: new.width, new.ldt: 2}
    fields |= {new.gprs + new.width * number: new.width for number in range(len(_GPRS))}
    fields |= {new.segments + new.step * number: 2 for number in range(new.segment_count)}
    if new.cr3 is not None:
        fields[new.cr3] = 4
    values = {offset: d.read(tr.base + offset, size, TSS) for offset, size in fields.items()}
    _store(d, save.tr.base + old.ip, d.return_rip, old.width)
    _store(d, save.tr.base + old.flags, d.flags, old.width)
    for number, name in enumerate(_GPRS):
        value = getattr(save if name in _IN_SAVE else gprs, name)
        _store(d, save.tr.base + old.gprs + old.width * number, value, old.width)
    for number, name in enumerate(_SEGMENTS[: old.segment_count]):
        _store(d, save.tr.base + old.segments + old.step * number, getattr(save, name).selector, 2)
    _store(d, tr.base + BACK_LINK, save.tr.selector, 2)
    _store(d, where + ACCESSED_BYTE, descriptors.attributes(descriptor) | SystemType.BUSY, 1)
    return Old(values, tr)


def enter(save: SaveArea, gprs: Gprs, old: Old) -> None:
    """Load the registers of the new task, its selectors without their descriptors."""
    values, new = old.values, task_fields(old.tr.attributes)
    high = 0 if new.width == 4 else M32 & ~M16
    load_segment(save.tr, old.tr)
    if new.cr3 is not None and save.cr0 & CR0.PG:
        save.cr3 = values[new.cr3]
    save.cr0 |= CR0.TS
    save.dr7 &= ~_LOCAL
    save.rip = values[new.ip]
    save.rflags = values[new.flags] & ~RFLAGS.ALWAYS_ZERO | RFLAGS.ALWAYS_ONE | RFLAGS.NT
    for number, name in enumerate(_GPRS):
        setattr(save if name in _IN_SAVE else gprs, name, values[new.gprs + new.width * number] | high)
    for name in _SEGMENTS:
        load_segment(getattr(save, name), _NOTHING)
    virtual = bool(save.rflags & RFLAGS.VM)
    for number, name in enumerate(_SEGMENTS[: new.segment_count]):
        selector = values[new.segments + new.step * number]
        state = SegmentState(selector, VIRTUAL_8086, M16, selector << 4) if virtual else _NOTHING
        load_segment(getattr(save, name), state._replace(selector=selector))
    load_segment(save.ldtr, _NOTHING._replace(selector=values[new.ldt]))
    save.cpl = 3 if virtual else save.cs.selector & Selector.RPL


def start(d: Delivery, old: Old) -> None:
    """Load the segments of the new task and push the error code; raises CheckFailed and PageFault of the new task."""
    save = d.save
    _load_ldt(d)
    if not d.rflags & RFLAGS.VM:
        for name in _LOADED:
            _load(d, name, getattr(save, name))
    if d.event.error_code is not None:
        ss, width = segment_state(save.ss), task_fields(old.tr.attributes).width
        mask = M32 if ss.attributes & Attribute.DB else M16
        sp, _ = d.push((d.event.error_code,), width, ss, save.rsp & mask, save.cpl)
        save.rsp = save.rsp & ~mask | sp
    if save.rip > save.cs.limit:
        raise CheckFailed(checks.HANDLER_LIMIT, rip=save.rip, limit=save.cs.limit)


def _load_ldt(d: Delivery) -> None:
    ldtr = d.save.ldtr
    selector = ldtr.selector
    if not selector & Selector.REFERENCE:
        return
    if selector & Selector.TI:
        raise CheckFailed(checks.TASK_LDT, selector)
    descriptor, _ = d.descriptor(selector, checks.TASK_LDT)
    attributes = descriptors.attributes(descriptor)
    if attributes & (Attribute.S | Attribute.TYPE | Attribute.P) != SystemType.LDT | Attribute.P:
        raise CheckFailed(checks.TASK_LDT, selector, descriptor=descriptor)
    state = SegmentState(selector, attributes, descriptors.limit(descriptor), descriptors.base(descriptor))
    load_segment(ldtr, state)


def _load(d: Delivery, name: str, segment: Segment) -> None:
    """Load one segment register from its selector, with the checks of the new task (APM vol. 2, 8.2.11)."""
    selector, cpl = segment.selector, d.save.cpl
    if not selector & Selector.REFERENCE:
        if name in ("cs", "ss"):
            raise CheckFailed(checks.TASK_SEGMENT, selector)
        return
    descriptor, where = d.descriptor(selector, checks.TASK_SEGMENT)
    state = descriptors.load(selector, descriptor)
    kind, dpl = state.attributes, state.attributes >> DPL_SHIFT & 3
    code, fits = kind & Attribute.CODE, bool(kind & Attribute.S)
    if name == "cs":
        fits = fits and bool(code) and (dpl <= cpl if kind & Attribute.CONFORMING else dpl == cpl)
    elif name == "ss":
        fits = fits and not code and bool(kind & Attribute.WRITABLE) and dpl == cpl == selector & Selector.RPL
    elif code and kind & Attribute.CONFORMING:
        fits = fits and bool(kind & Attribute.WRITABLE)
    else:
        fits = fits and bool(kind & Attribute.WRITABLE or not code) and dpl >= max(cpl, selector & Selector.RPL)
    if not fits:
        raise CheckFailed(checks.TASK_SEGMENT, selector, descriptor=descriptor)
    if not kind & Attribute.P:
        check = checks.STACK_PRESENT if name == "ss" else checks.TASK_SEGMENT_PRESENT
        raise CheckFailed(check, selector, descriptor=descriptor)
    if not descriptor & ACCESSED:
        d.mark_accessed(descriptor, where)
    load_segment(segment, state)


def _store(d: Delivery, gva: int, value: int, size: int) -> None:
    d.place = TSS
    for number, byte in enumerate((value & (1 << 8 * size) - 1).to_bytes(size, "little")):  # it may be in two pages
        d.writes.append((d.space.translate(gva + number & d.space.mask, WRITE | IMPLICIT), bytes((byte,))))
