"""Delivery in real mode (APM 8.6): a vector table of far pointers, three 16-bit values pushed, no error code."""

from typing import Final

from trapline.arch.bits import M16, M64
from trapline.arch.descriptors import REAL_GATE_SIZE, Attribute, SegmentState
from trapline.arch.registers import RFLAGS
from trapline.arch.vmcb import segment_state

from . import checks
from .access import IDT, Delivery
from .outcome import CheckFailed, Delivered

_CLEARED: Final = M64 ^ (RFLAGS.IF | RFLAGS.TF | RFLAGS.AC | RFLAGS.RF)


def deliver(d: Delivery) -> Delivered:
    """Deliver the event; raises CheckFailed."""
    save = d.save
    offset = d.event.vector * REAL_GATE_SIZE
    if offset + REAL_GATE_SIZE - 1 > save.idtr.limit:
        raise CheckFailed(checks.IDT_LIMIT, limit=save.idtr.limit)
    entry = d.read(save.idtr.base + offset, 4, IDT)
    return enter(d, entry, d.flags, d.rflags & _CLEARED)


def enter(d: Delivery, entry: int, flags: int, rflags: int) -> Delivered:
    """Push three 16-bit values and enter the handler of a far pointer, as real and virtual-8086 mode do."""
    save = d.save
    old = segment_state(save.cs)
    ss, rsp = segment_state(save.ss), save.rsp
    sp, frame = d.push((flags & M16, old.selector, d.return_rip & M16), 2, ss, rsp, d.cpl)
    rip, selector = entry & M16, entry >> 16
    if rip > old.limit:
        raise CheckFailed(checks.HANDLER_LIMIT, rip=rip, limit=old.limit)
    cs = SegmentState(selector, old.attributes, old.limit, selector << 4)
    return Delivered(rip, merge(rsp, sp, ss), rflags, d.cpl, cs, None, False, d.writes, frame)


def merge(rsp: int, sp: int, ss: SegmentState) -> int:
    """Return RSP after pushes: a 16-bit stack changes SP alone."""
    return sp if ss.attributes & Attribute.DB else rsp & ~M16 | sp
