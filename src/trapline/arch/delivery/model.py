"""The function that delivers an event, and what surrounds it."""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from trapline.arch.descriptors import SegmentState, Selector
from trapline.arch.error_codes import SELECTOR_EXTERNAL, SELECTOR_IDT
from trapline.arch.events import Event, EventType
from trapline.arch.memory import Overlay, PhysicalMemory
from trapline.arch.paging import PHYSICAL_BITS, Denied, NotMapped, PageFault
from trapline.arch.registers import CR0, RFLAGS, Gprs
from trapline.arch.vmcb import SaveArea, load_segment

from . import long, protected, real, task, virtual
from .access import Delivery
from .checks import Check, Code
from .outcome import CheckFailed, Delivered, Failed
from .task import Switched

_NULL: Final = SegmentState(0, 0, 0, 0)
_T = TypeVar("_T")


def deliver(
    save: SaveArea,
    event: Event,
    memory: PhysicalMemory,
    *,
    next_rip: int | None = None,
    physical_bits: int = PHYSICAL_BITS,
    sets_rf: bool = True,
    interrupts_keep_rf: bool = True,
) -> Delivered | Failed:
    """Deliver an event as the CPU does (APM 8.6-8.10). Neither the state nor the memory is changed.

    `next_rip` is what INT n, INT3 and INTO push: the RIP after the instruction; without it, and for other events, RIP.
    `physical_bits` tells which bits of page tables are reserved. `sets_rf`: the pushed flags of a fault have RF set;
    `interrupts_keep_rf`: those of an interrupt have it as it was. So has the manual.
    """
    d = Delivery(save, event, memory, next_rip, physical_bits, sets_rf, interrupts_keep_rf)
    return _attempt(d, _deliver)


def switch(
    save: SaveArea,
    gprs: Gprs,
    event: Event,
    memory: PhysicalMemory,
    selector: int,
    *,
    next_rip: int | None = None,
    physical_bits: int = PHYSICAL_BITS,
    sets_rf: bool = True,
) -> Switched | Failed:
    """Switch to the task of a TSS as an event does whose gate is a task gate (APM 12.5). Nothing given is changed.

    `deliver` has made the checks of the gate and of the TSS's descriptor, and named `selector`. Failed: an exception of
    the outgoing task follows.
    """
    outgoing = Delivery(save, event, memory, next_rip, physical_bits, sets_rf)
    task_state = _attempt(outgoing, lambda d: task.leave(d, gprs, selector))
    if isinstance(task_state, Failed):
        return task_state
    save, gprs = SaveArea.from_buffer_copy(save), Gprs.from_buffer_copy(gprs)
    task.enter(save, gprs, task_state)
    seen = Overlay(memory)
    seen.store(outgoing.writes)
    incoming = Delivery(save, event, seen, None, physical_bits, sets_rf)
    failed = _attempt(incoming, lambda d: task.start(d, task_state))
    return Switched(save, gprs, outgoing.writes + incoming.writes, failed)


def _deliver(d: Delivery) -> Delivered:
    if d.space.long:
        return long.deliver(d)
    if not d.save.cr0 & CR0.PE:
        return real.deliver(d)
    if d.rflags & RFLAGS.VM:
        return virtual.deliver(d)
    return protected.deliver(d)


def _attempt(d: Delivery, act: Callable[[Delivery], _T]) -> _T | Failed:
    """Return what `act` does, or the check that it fails at."""
    try:
        return act(d)
    except CheckFailed as failure:
        code = _error_code(failure.check, failure.selector, d)
        details = dict(failure.details)
        if failure.check.code is Code.SELECTOR:
            details["selector"] = failure.selector
        return _failed(d, failure.check, code, None, details)
    except PageFault as fault:
        details = {"gva": fault.address, "level": fault.level, "entry": fault.entry}
        return _failed(d, d.place.page, fault.error_code, fault.address, details, fault.denied)
    except NotMapped as no:
        check = d.place.address
        return _failed(d, check, _error_code(check, 0, d), None, {"gva": no.address})


def _error_code(check: Check, selector: int, d: Delivery) -> int:
    """Return the error code of what follows (APM 8.4.1): EXT unless an instruction asked for the event."""
    external = 0 if d.software else SELECTOR_EXTERNAL
    if check.code is Code.IDT:
        return d.event.vector << 3 | SELECTOR_IDT | external
    if check.code is Code.SELECTOR:
        return selector & Selector.REFERENCE | external
    return external if check.code is Code.ZERO else 0


def _failed(
    d: Delivery,
    check: Check,
    code: int,
    address: int | None,
    details: Mapping[str, int],
    denied: Denied | None = None,
) -> Failed:
    event = None if check.vector is None else Event(check.vector, EventType.EXCEPTION, code)
    return Failed(check, event, address, {"vector": d.event.vector, **details}, denied, d.writes)


def apply(save: SaveArea, delivered: Delivered) -> None:
    """Write the new register state into the save area; storing `delivered.writes` is the caller's."""
    save.rip, save.rsp, save.rflags, save.cpl = delivered.rip, delivered.rsp, delivered.rflags, delivered.cpl
    load_segment(save.cs, delivered.cs)
    if delivered.ss is not None:
        load_segment(save.ss, delivered.ss)
    if delivered.nulled:
        for segment in (save.es, save.ds, save.fs, save.gs):
            load_segment(segment, _NULL)
