"""Delivery in long mode, from 64-bit and compatibility mode alike (APM 8.9)."""

from typing import Final

from trapline.arch import descriptors
from trapline.arch.bits import M64
from trapline.arch.descriptors import (
    ACCESSED,
    ATTRIBUTES_HIGH,
    ATTRIBUTES_LOW,
    DPL_SHIFT,
    GATE_PRESENT,
    LONG_GATE_SIZE,
    Attribute,
    GateType,
    SegmentState,
    Selector,
)
from trapline.arch.registers import RFLAGS

from . import checks
from .access import IDT, TSS, Delivery
from .outcome import CheckFailed, Delivered

_CLEARED: Final = M64 ^ (RFLAGS.TF | RFLAGS.NT | RFLAGS.RF | RFLAGS.VM)
_CLEARED_WITH_IF: Final = _CLEARED & ~RFLAGS.IF
_CODE: Final = Attribute.S | Attribute.CODE
_L: Final = Attribute.L << ATTRIBUTES_HIGH
_LONG: Final = _L | Attribute.DB << ATTRIBUTES_HIGH


def deliver(d: Delivery) -> Delivered:
    """Deliver the event; raises CheckFailed and what page walks raise."""
    gate, rip = _read_gate(d)
    selector = descriptors.gate_selector(gate)
    if not selector & Selector.REFERENCE:
        raise CheckFailed(checks.CODE_NULL, gate=gate)
    descriptor, where = d.descriptor(selector, checks.CODE_LIMIT)
    cpl = check_code(d, selector, descriptor)
    if descriptor & _LONG != _L:
        raise CheckFailed(checks.CODE_LONG, selector, descriptor=descriptor)
    if not descriptor & ACCESSED:
        d.mark_accessed(descriptor, where)

    save = d.save
    rsp = save.rsp
    ist = gate >> 32 & 7
    own_stack = bool(cpl != d.cpl or ist)
    top = _stack_pointer(d, cpl, ist) if own_stack else rsp
    values: tuple[int, ...] = (save.ss.selector, rsp, d.flags, save.cs.selector, d.return_rip)
    if d.event.error_code is not None:
        values = (*values, d.event.error_code)
    frame = d.push_quads(values, top, cpl)
    if not d.space.is_canonical(rip):
        raise CheckFailed(checks.HANDLER_ADDRESS, rip=rip)

    rflags = d.rflags & (_CLEARED if gate >> ATTRIBUTES_LOW & GateType.TRAP else _CLEARED_WITH_IF)
    ss = None if cpl == d.cpl else SegmentState(cpl, cpl << DPL_SHIFT, 0, 0)
    cs = descriptors.load(selector & ~Selector.RPL | cpl, descriptor)
    return Delivered(rip, frame.gva, rflags, cpl, cs, ss, False, d.writes, frame, own_stack)


def _read_gate(d: Delivery) -> tuple[int, int]:
    """Return the first half of the gate, found fit for the event, and the entry point."""
    idtr = d.save.idtr
    offset = d.event.vector * LONG_GATE_SIZE
    if offset + LONG_GATE_SIZE - 1 > idtr.limit:
        raise CheckFailed(checks.IDT_LIMIT, limit=idtr.limit)
    gate, high = d.read_pair(idtr.base + offset, IDT)
    if descriptors.gate_type(gate) | GateType.TRAP != GateType.TRAP_32:
        raise CheckFailed(checks.GATE_TYPE, gate=gate)
    if d.software or not gate & GATE_PRESENT:
        check_use(d, gate)
    return gate, descriptors.gate_offset_64(gate, high)


def check_use(d: Delivery, gate: int) -> None:
    """Check that the event may take the gate, and that the gate is there (APM 8.7.4)."""
    if d.software and gate >> ATTRIBUTES_LOW + DPL_SHIFT & 3 < d.cpl:
        raise CheckFailed(checks.GATE_DPL, gate=gate, cpl=d.cpl)
    if not gate & GATE_PRESENT:
        raise CheckFailed(checks.GATE_PRESENT, gate=gate)


def check_code(d: Delivery, selector: int, descriptor: int) -> int:
    """Check the handler's code segment, and return the CPL it runs at (APM 8.7.4)."""
    kept = descriptor >> ATTRIBUTES_LOW & 0xFF
    if kept & _CODE != _CODE:
        raise CheckFailed(checks.CODE_TYPE, selector, descriptor=descriptor)
    dpl = kept >> DPL_SHIFT & 3
    if dpl > d.cpl:
        raise CheckFailed(checks.CODE_DPL, selector, descriptor=descriptor, cpl=d.cpl)
    if not kept & Attribute.P:
        raise CheckFailed(checks.CODE_PRESENT, selector, descriptor=descriptor)
    return d.cpl if kept & Attribute.CONFORMING else dpl


def _stack_pointer(d: Delivery, cpl: int, ist: int) -> int:
    """Read from the TSS the stack pointer that the gate names, or else the one for a CPL (APM 8.9.4, 12.2.5)."""
    tr = d.save.tr
    offset = descriptors.ist_offset(ist) if ist else descriptors.rsp_offset(cpl)
    if offset + 7 > tr.limit:
        raise CheckFailed(checks.TSS_LIMIT, tr.selector, limit=tr.limit)
    rsp = d.read(tr.base + offset, 8, TSS)
    if not d.space.is_canonical(rsp):
        raise CheckFailed(checks.STACK_POINTER, rsp=rsp)
    return rsp
