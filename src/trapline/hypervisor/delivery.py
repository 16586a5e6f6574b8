"""From an intercepted exception to the event that the guest gets: combine, then inject (APM 15.7.3, 15.20).

`forward` takes whatever the hardware delivered; `inject` writes EVENTINJ for exactly one event.
"""

from typing import TYPE_CHECKING, Final

from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType, combine, encode
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import FAULTS, VECTORS, ErrorCode, Vector

from .observers import ExceptionExit, Verdict
from .stop import Reason, Stop

if TYPE_CHECKING:
    from .vcpu import Vcpu

_FORWARD: Final = Verdict.FORWARD
_EXCEPTION: Final = EventType.EXCEPTION
"""Members of an enumeration take a while to be found."""


def error_code(vector: int, exit_info_1: int) -> int | None:
    """Return the error code that an exception pushes, by where the manual says it comes from."""
    source = VECTORS[vector].error_code
    if source is ErrorCode.EXITINFO1:
        return exit_info_1 & 0xFFFF_FFFF
    return 0 if source is ErrorCode.ZERO else None


def forward(vcpu: "Vcpu", exit: ExceptionExit) -> Stop | None:
    """Show an exception to the observers, then give it to the guest as it was.

    What was being delivered combines with it: the result is the exception, #DF or a shutdown. If it is
    discarded, what was being delivered is still owed to the guest.
    """
    verdict = vcpu.vm.observers.ask(vcpu, exit)
    if verdict is _FORWARD:
        return deliver(vcpu, exit)
    if verdict is Verdict.STOP:
        vcpu.undelivered = exit  # recorded when it is delivered
        return Stop(Reason.OBSERVER, str(exit.event))
    if vcpu.vm.recorder is not None:
        vcpu.vm.recorder(vcpu, exit, None)
    return None


def deliver(vcpu: "Vcpu", exit: ExceptionExit) -> Stop | None:
    """Give an exception to the guest; no observer is asked."""
    vcpu.vectoring = None  # the combination answers for it
    if exit.address is not None:
        # Hardware writes CR2 before the exceptions combine, so a #DF leaves the second address in it.
        vcpu.save.cr2 = exit.address
    result = exit.event if exit.vectoring is None else combine(exit.vectoring, exit.event)
    recorder = vcpu.vm.recorder
    if recorder is not None:
        recorder(vcpu, exit, result)
    if result is SHUTDOWN:
        return Stop(Reason.SHUTDOWN)
    if result is DOUBLE_FAULT is not exit.event and vcpu.vm.mask >> Vector.DF & 1:
        return forward(vcpu, ExceptionExit(result, None, None, synthesized=True))
    inject(vcpu, result)
    return None


def inject(vcpu: "Vcpu", event: Event) -> None:
    """Write EVENTINJ. An interrupt shadow ends with the event; RF is set as the CPU sets it for a fault.

    #BP and #OF keep the nRIP that the exit left in the VMCB: their handler returns behind the instruction.
    """
    control, save = vcpu.control, vcpu.save
    vector, kind, code = event
    if code is not None and not save.cr0 & CR0.PE:
        event = Event(vector, kind)  # real mode pushes none, and EVENTINJ would (APM 15.20)
    control.event_inj = word = encode(event)
    control.interrupt_shadow = 0
    if kind == _EXCEPTION and FAULTS >> vector & 1 and vcpu.processor.capabilities.forwards_set_rf:
        flags = save.rflags
        if not flags & RFLAGS.RF:
            save.rflags = flags | RFLAGS.RF
            vcpu.lent_rf = word
