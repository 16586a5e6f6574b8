"""What a step does with exits and events: answer, and deliver up to the first instruction of the handler."""

import contextlib
from collections.abc import Callable
from typing import Final, TypeAlias

from trapline.arch.delivery import Delivered, Failed, apply, deliver, handler_addresses
from trapline.arch.events import SHUTDOWN, VALID, Event, EventType, combine, decode, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, clear_intercept, exception_exit
from trapline.arch.memory import ReaderMemory, open_bus
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.errors import FaultError, UsageError
from trapline.machine.linear import code_address
from trapline.machine.processor import Outcome

from . import handlers, loop
from .delivery import error_code, inject
from .emulate import skip_instruction
from .intercepts import intercept_for_step
from .loop import answer_outcome, requeue
from .stop import Answer, Resume, Stop, StopReason
from .vcpu import Vcpu

Kicked: TypeAlias = Callable[[], Stop | None]
"""Called when the guest was stopped by `Processor.kick`; may end the step."""

DB_EXIT: Final = exception_exit(Vector.DB)
STEP: Final = Stop(StopReason.STEP)


def insert(vcpu: Vcpu, addresses: frozenset[int]) -> None:
    """Give the processor these breakpoints; raises UsageError where it has none."""
    if addresses != vcpu.inserted:
        vcpu.processor.set_breakpoints(addresses)
        vcpu.inserted = addresses


def insert_also(vcpu: Vcpu, addresses: frozenset[int]) -> None:
    """Give the processor these breakpoints besides those of a run, except at RIP: no other is reached before them.

    It costs a processor less than to take those of the run out. Raises UsageError where it has none.
    """
    insert(vcpu, vcpu.breakpoints - {code_address(vcpu.save)} | addresses)


def take_nmi(vcpu: Vcpu, kicked: Kicked) -> Stop | None:
    """Let the guest take an NMI itself, which blocks further ones."""
    clear_intercept(vcpu.control, ExitCode.NMI)
    vcpu.processor.intercepts_changed(0)
    stop = _natively(vcpu, Event(Vector.NMI, EventType.NMI), kicked)
    if vcpu.stepping:
        intercept_for_step(vcpu)
    return stop


def deliver_pending(vcpu: Vcpu, kicked: Kicked) -> Stop | None:
    """Deliver the event in EVENTINJ; None: its delivery failed, and what comes of it is there now."""
    event = decode(vcpu.control.event_inj)
    assert event is not None, "the caller has checked it"
    if vcpu.processor.capabilities.delivers_as_modelled:
        return _by_model(vcpu, event, kicked)
    return _natively(vcpu, event, kicked)


def _by_model(vcpu: Vcpu, event: Event, kicked: Kicked) -> Stop | None:
    """Do what the CPU does to deliver an event."""
    save, control, processor = vcpu.save, vcpu.control, vcpu.processor
    if vcpu.injected_with_rf:  # the model pushes it
        save.rflags &= ~RFLAGS.RF
        vcpu.injected_with_rf = 0
    able = processor.capabilities
    result = deliver(
        save,
        event,
        ReaderMemory(open_bus(processor.memory.read)),
        next_rip=control.nrip,
        physical_bits=able.physical_bits,
        sets_rf=able.sets_rf,
    )
    if isinstance(result, Failed) and result.event is None:
        return _natively(vcpu, event, kicked)
    for gpa, data in result.writes:
        with contextlib.suppress(FaultError):  # a store to where no memory is goes nowhere
            processor.memory.write(gpa, data)
    if isinstance(result, Delivered):
        apply(save, result)
        control.event_inj = control.interrupt_shadow = 0
        return STEP
    failure = result.event
    assert failure is not None, "that was asked above"
    control.exit_code = exception_exit(failure.vector)
    control.exit_info_1, control.exit_info_2 = failure.error_code or 0, result.address or 0
    control.exit_int_info = encode(event)
    return answer_exit(vcpu)


def _natively(vcpu: Vcpu, event: Event, kicked: Kicked) -> Stop | None:
    """Let the processor deliver an event, and stop at its handler."""
    control, processor = vcpu.control, vcpu.processor
    memory = ReaderMemory(open_bus(processor.memory.read))
    places = handler_addresses(vcpu.save, event, memory, processor.capabilities.physical_bits)
    try:
        insert_also(vcpu, places)
    except UsageError:
        return Stop(StopReason.STEP, f"{event} is delivered when the guest runs on: the processor has no breakpoints")
    outcome = processor.run(None)
    if outcome is Outcome.BREAKPOINT:
        return STEP
    if outcome is Outcome.VMEXIT:
        if control.exit_code == ExitCode.NMI and not control.exit_int_info & VALID:
            return STEP  # the handler has not begun
        return answer_exit(vcpu)
    stop = answer_outcome(vcpu, outcome, kicked)
    return stop or (None if control.event_inj & VALID else STEP)


def answer_exit(vcpu: Vcpu) -> Stop | None:
    """Do what the loop does at an exit; None: an event is to be delivered now."""
    return answered(vcpu, loop.answer_exit(vcpu, _HANDLERS))


def answered(vcpu: Vcpu, answer: Answer) -> Stop | None:
    """Return what an answer means for the step; None: an event is to be delivered now."""
    if isinstance(answer, Stop):
        return answer
    if answer is Resume.REQUEUE:
        requeue(vcpu, vcpu.vectoring)
    return None if vcpu.control.event_inj & VALID else STEP


def _exception(vcpu: Vcpu) -> Answer:
    """An exception that is not forced is combined and delivered without notice, as the CPU does it (APM 15.7.3)."""
    control = vcpu.control
    vector = control.exit_code - EXCEPTION_EXITS.start
    if vcpu.policy.mask >> vector & 1:
        return handlers.exception(vcpu)
    if vector == Vector.PF:
        vcpu.save.cr2 = control.exit_info_2
    code = error_code(vector, control.exit_info_1)
    result = combine(vcpu.vectoring, Event(vector, EventType.EXCEPTION, code))
    if result is SHUTDOWN:
        return Stop(StopReason.SHUTDOWN)
    if result.vector == Vector.DF and vcpu.policy.mask >> Vector.DF & 1:
        control.exit_code = exception_exit(Vector.DF)
        return handlers.exception(vcpu)
    inject(vcpu, result)
    return Resume.DONE


def _software_interrupt(vcpu: Vcpu) -> Answer:
    inject(vcpu, Event(vcpu.control.exit_info_1 & 0xFF, EventType.SOFT))
    return Resume.DONE


_HANDLERS: Final = {
    **handlers.TABLE.handlers(),
    **dict.fromkeys(EXCEPTION_EXITS, _exception),
    ExitCode.SWINT: _software_interrupt,
    ExitCode.PAUSE: skip_instruction,
}
