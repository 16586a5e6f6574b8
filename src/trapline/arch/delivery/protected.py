"""Delivery in protected mode through 16- and 32-bit gates, from virtual-8086 mode too (APM 8.7, 8.8.1)."""

from typing import Final, NoReturn

from trapline.arch import descriptors
from trapline.arch.bits import M32, M64
from trapline.arch.descriptors import (
    ACCESSED,
    ATTRIBUTES_LOW,
    DPL_SHIFT,
    GATE_PRESENT,
    GATE_SIZE,
    Attribute,
    GateType,
    SegmentState,
    Selector,
    SystemType,
)
from trapline.arch.registers import RFLAGS
from trapline.arch.vmcb import segment_state

from . import checks
from .access import IDT, TSS, Delivery
from .long import check_code, check_use
from .outcome import CheckFailed, Delivered
from .real import merge

_GATES: Final = (
    GateType.TASK,
    GateType.INTERRUPT_16,
    GateType.TRAP_16,
    GateType.INTERRUPT_32,
    GateType.TRAP_32,
)
_CLEARED: Final = M64 ^ (RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM)
_CLEARED_WITH_IF: Final = _CLEARED & ~RFLAGS.IF
_STACK: Final = Attribute.S | Attribute.CODE | Attribute.WRITABLE


def deliver(d: Delivery) -> Delivered:
    """Deliver the event; raises CheckFailed and PageFault."""
    gate = _read_gate(d)
    kind = descriptors.gate_type(gate)
    selector = descriptors.gate_selector(gate)
    if kind == GateType.TASK:
        _refuse_task(d, gate, selector)
    if not selector & Selector.REFERENCE:
        raise CheckFailed(checks.CODE_NULL, gate=gate)
    descriptor, where = d.descriptor(selector, checks.CODE_LIMIT)
    cpl = check_code(d, selector, descriptor)
    virtual = bool(d.rflags & RFLAGS.VM)
    if virtual and cpl:
        raise CheckFailed(checks.CODE_RING_0, selector, descriptor=descriptor)
    if not descriptor & ACCESSED:
        d.mark_accessed(descriptor, where)
    cs = descriptors.load(selector & ~Selector.RPL | cpl, descriptor)

    save = d.save
    old_ss, rsp = segment_state(save.ss), save.rsp
    values: tuple[int, ...] = (d.flags & M32, save.cs.selector, d.return_rip & M32)
    if d.event.error_code is not None:
        values = (*values, d.event.error_code)
    ss, top = old_ss, rsp
    if cpl < d.cpl:
        ss, top = _inner_stack(d, cpl)
        values = (old_ss.selector, rsp & M32, *values)
    if virtual:
        values = (save.gs.selector, save.fs.selector, save.ds.selector, save.es.selector, *values)
    wide = kind & GateType.WIDE
    sp, frame = d.push(values, 4 if wide else 2, ss, top, cpl)
    rip = descriptors.gate_offset_32(gate) if wide else gate & 0xFFFF
    if rip > cs.limit:
        raise CheckFailed(checks.HANDLER_LIMIT, rip=rip, limit=cs.limit)

    rflags = d.rflags & (_CLEARED if kind & GateType.TRAP else _CLEARED_WITH_IF)
    own_stack = cpl < d.cpl
    new_ss = ss if own_stack else None
    return Delivered(rip, merge(rsp, sp, ss), rflags, cpl, cs, new_ss, virtual, d.writes, frame, own_stack)


def _read_gate(d: Delivery) -> int:
    """Return the gate, found fit for the event."""
    idtr = d.save.idtr
    offset = d.event.vector * GATE_SIZE
    if offset + GATE_SIZE - 1 > idtr.limit:
        raise CheckFailed(checks.IDT_LIMIT, limit=idtr.limit)
    gate = d.read(idtr.base + offset, 8, IDT)
    if descriptors.gate_type(gate) not in _GATES:
        raise CheckFailed(checks.GATE_TYPE, gate=gate)
    if d.software or not gate & GATE_PRESENT:
        check_use(d, gate)
    return gate


def _refuse_task(d: Delivery, gate: int, selector: int) -> NoReturn:
    """Find what is wrong with the TSS that a task gate names: where nothing is, a task switch would follow."""
    if selector & Selector.TI:
        raise CheckFailed(checks.TASK_TABLE, selector)
    descriptor, _ = d.descriptor(selector, checks.TASK_LIMIT)
    kind = descriptor >> ATTRIBUTES_LOW & (Attribute.S | Attribute.TYPE & ~Attribute.WIDE_TSS)
    if kind != SystemType.TSS_16:
        raise CheckFailed(checks.TASK_TYPE, selector, descriptor=descriptor)
    if not descriptor & GATE_PRESENT:
        raise CheckFailed(checks.TASK_PRESENT, selector, descriptor=descriptor)
    raise CheckFailed(checks.TASK_GATE, gate=gate, task=selector)


def _inner_stack(d: Delivery, cpl: int) -> tuple[SegmentState, int]:
    """Return the stack that the TSS names for a privilege level (APM 8.7.3, 12.2.4)."""
    tr = segment_state(d.save.tr)
    slot = descriptors.stack_slot(tr.attributes & Attribute.TYPE, cpl)
    if slot.offset + 2 * slot.width - 1 > tr.limit:
        raise CheckFailed(checks.TSS_LIMIT, tr.selector, limit=tr.limit)
    top = d.read(tr.base + slot.offset, slot.width, TSS)
    selector = d.read(tr.base + slot.offset + slot.width, 2, TSS)
    if not selector & Selector.REFERENCE:
        raise CheckFailed(checks.STACK_NULL, selector=selector)
    if selector & Selector.RPL != cpl:
        raise CheckFailed(checks.STACK_RPL, selector, cpl=cpl)
    descriptor, where = d.descriptor(selector, checks.STACK_LIMIT)
    ss = descriptors.load(selector, descriptor)
    if ss.attributes >> DPL_SHIFT & 3 != cpl:
        raise CheckFailed(checks.STACK_DPL, selector, descriptor=descriptor, cpl=cpl)
    if ss.attributes & _STACK != Attribute.S | Attribute.WRITABLE:
        raise CheckFailed(checks.STACK_TYPE, selector, descriptor=descriptor)
    if not ss.attributes & Attribute.P:
        raise CheckFailed(checks.STACK_PRESENT, selector, descriptor=descriptor)
    if not descriptor & ACCESSED:
        d.mark_accessed(descriptor, where)
    return ss, top
