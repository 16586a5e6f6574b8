"""Where the handler of an event begins: for a breakpoint there, while the CPU delivers the event itself."""

from trapline.arch import descriptors
from trapline.arch.bits import M16, M32
from trapline.arch.descriptors import GATE_SIZE, LONG_GATE_SIZE, REAL_GATE_SIZE, GateType, Selector
from trapline.arch.events import Event
from trapline.arch.memory import PhysicalMemory
from trapline.arch.paging import NotMapped, PageFault
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vmcb import SaveArea

from . import checks
from .access import IDT, TSS, Delivery
from .outcome import CheckFailed


def handler_addresses(save: SaveArea, event: Event, memory: PhysicalMemory, physical_bits: int) -> frozenset[int]:
    """Return the linear addresses at which a CPU may begin the handler of an event, or the task of its gate.

    They are read without the checks of a delivery, some of which are left out by TCG. Several: a 16-bit gate whose
    upper half of the offset is not zero. None: the gate cannot be read, and the delivery fails.
    """
    d = Delivery(save, event, memory, None, physical_bits, False)
    try:
        if d.space.long:
            gate, high = d.read_pair(save.idtr.base + LONG_GATE_SIZE * event.vector, IDT)
            return frozenset((descriptors.gate_offset_64(gate, high),))
        if not save.cr0 & CR0.PE:
            entry = d.read(save.idtr.base + REAL_GATE_SIZE * event.vector, 4, IDT)
            return frozenset(((entry >> 16 << 4) + (entry & M16),))
        gate = d.read(save.idtr.base + GATE_SIZE * event.vector, 8, IDT)
        selector = descriptors.gate_selector(gate)
        if descriptors.gate_type(gate) == GateType.TASK:
            return frozenset((_task_address(d, selector),))
        base, offset = _base(d, selector), descriptors.gate_offset_32(gate)
        return frozenset(
            base + at & M32 for at in (offset, offset if descriptors.gate_type(gate) & GateType.WIDE else offset & M16)
        )
    except (CheckFailed, PageFault, NotMapped):
        return frozenset()


def _task_address(d: Delivery, selector: int) -> int:
    """Return where a task resumes (APM 12.5)."""
    descriptor, _ = d.descriptor(selector, checks.TASK_LIMIT)
    tss = descriptors.load(selector, descriptor)
    at = descriptors.task_fields(tss.attributes)
    rip = d.read(tss.base + at.ip, at.width, TSS)
    cs = d.read(tss.base + at.cs, 2, TSS)
    if d.read(tss.base + at.flags, at.width, TSS) & RFLAGS.VM:
        return (cs << 4) + rip & M32
    if not cs & Selector.TI:
        return _base(d, cs) + rip & M32
    ldt = _base(d, d.read(tss.base + at.ldt, 2, TSS))
    code = d.read(ldt + (cs & Selector.INDEX), 8, TSS)
    return descriptors.load(cs, code).base + rip & M32


def _base(d: Delivery, selector: int) -> int:
    descriptor, _ = d.descriptor(selector, checks.CODE_LIMIT)
    return descriptors.load(selector, descriptor).base
