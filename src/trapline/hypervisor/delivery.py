"""Makes of an intercepted exception the event that the guest gets: combines, then injects (APM 15.7.3, 15.20)."""

from typing import Final

from trapline.arch.consistency import is_illegal
from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType, Shutdown, combine, encode
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import FAULTS, SOFTWARE_EXCEPTIONS, VECTORS, ErrorCode, Vector
from trapline.errors import UsageError
from trapline.machine.linear import code_bits

from .exception import Decision, Injection, InterceptedException, Verdict
from .stop import Answer, Resume, Stop, StopReason
from .vcpu import Undelivered, Vcpu

_CET_SS: Final = 7
"""CPUID function 7, ECX: the CPU has shadow stacks."""
_FORWARD: Final = Verdict.FORWARD
_DONE: Final = Resume.DONE
_EXCEPTION: Final = EventType.EXCEPTION
"""Bound once: looking up a member of an enumeration is slow."""


def error_code(vector: int, exit_info_1: int) -> int | None:
    """Return the error code that an exception pushes: EXITINFO1 or 0, by its vector; None: it pushes none."""
    source = VECTORS[vector].error_code
    if source is ErrorCode.EXITINFO1:
        return exit_info_1 & 0xFFFF_FFFF
    return 0 if source is ErrorCode.ZERO else None


def forward(vcpu: Vcpu, exit: InterceptedException) -> Answer:
    """Ask the observers about an exception, and do what they decide: FORWARD unless one decides otherwise."""
    raised = vcpu.state.tobytes()
    decision = vcpu.policy.ask(vcpu, exit)
    return deliver(vcpu, exit) if decision is _FORWARD else decide(vcpu, exit, decision, raised)


def decide(vcpu: Vcpu, exit: InterceptedException, decision: Decision, raised: bytes) -> Answer:
    """Do what was decided about an exception. After DISCARD the event under delivery is injected again.

    `raised` is `vcpu.state` at the #VMEXIT: what is discarded is recorded where it was raised, not where the guest
    is to continue.
    """
    if isinstance(decision, Injection):
        return _deliver_instead(vcpu, exit, decision)
    if decision is _FORWARD:
        return deliver(vcpu, exit)
    if decision is Verdict.STOP:
        vcpu.undelivered = Undelivered(exit, _FORWARD, raised)  # recorded when it is delivered
        return Stop(StopReason.EXCEPTION, str(exit.event), exit)
    state = vcpu.state
    changed, state[:] = state.tobytes(), raised
    for recorder in vcpu.policy.recorders:
        recorder(vcpu, exit, None)
    state[:] = changed
    return _DONE if exit.vectoring is None else Resume.REQUEUE


def deliver(vcpu: Vcpu, exit: InterceptedException) -> Answer:
    """Deliver an exception to the guest without asking the observers.

    It combines with the event under delivery: the result is the exception, #DF or a shutdown.
    """
    if exit.address is not None:
        # The CPU writes CR2 before the exceptions combine: after a #DF it has the second address.
        vcpu.save.cr2 = exit.address
    event, vectoring = exit.event, exit.vectoring
    if vectoring is not None:
        return _give(vcpu, exit, event, combine(vectoring, event))
    for recorder in vcpu.policy.recorders:
        recorder(vcpu, exit, event)
    inject(vcpu, event)
    return _DONE


def check_decision(vcpu: Vcpu, decision: object) -> Decision:
    """Return a decision about an exception of the stopped guest.

    Raises UsageError for an exception that cannot be injected, and for what is not a decision.
    """
    if isinstance(decision, Injection):
        check_injection(vcpu, decision)
    elif not isinstance(decision, Verdict):
        raise UsageError(f"{decision!r} is not FORWARD, DISCARD, STOP or inject(...)")
    return decision


def check_injection(vcpu: Vcpu, injection: Injection) -> None:
    """Raise UsageError for an exception that the guest's CPU cannot raise in its mode (APM 15.20)."""
    event = injection.event
    lacks_into = event.vector == Vector.OF and code_bits(vcpu.save) == 64  # APM vol. 3, INTO
    if lacks_into or is_illegal(event, vcpu.processor.vmcb):
        raise UsageError(f"{event} cannot be injected: no instruction raises it in the guest's mode")
    if event.vector == Vector.CP and not _has_shadow_stacks(vcpu):
        raise UsageError(f"{event} cannot be injected: the guest's CPU has no shadow stacks")


def _has_shadow_stacks(vcpu: Vcpu) -> bool:
    """Return whether the CPU can raise #CP (APM vol. 3, CPUID Fn0000_0007_ECX_x0)."""
    return bool(vcpu.processor.cpuid(7, 0)[2] >> _CET_SS & 1)


def _deliver_instead(vcpu: Vcpu, exit: InterceptedException, injection: Injection) -> Answer:
    """Deliver another exception, as if it had been raised instead of the intercepted one.

    The handler of a trap returns to the current RIP, unless it is the trap that was intercepted.
    """
    event, address = injection
    if address is not None:
        vcpu.save.cr2 = address
    if SOFTWARE_EXCEPTIONS >> event.vector & 1 and event.vector != exit.event.vector:
        vcpu.control.nrip = vcpu.save.rip
    result = event if exit.vectoring is None else combine(exit.vectoring, event)
    return _give(vcpu, exit, event, result)


def _give(vcpu: Vcpu, exit: InterceptedException, queued: Event, result: Event | Shutdown) -> Answer:
    """Record an exception, and inject `result`: what `queued` and the event under delivery have combined to."""
    policy = vcpu.policy
    for recorder in policy.recorders:
        recorder(vcpu, exit, result)
    if result is SHUTDOWN:
        return Stop(StopReason.SHUTDOWN)
    if result is DOUBLE_FAULT is not queued and policy.mask >> Vector.DF & 1:
        return forward(vcpu, InterceptedException(result, None, None, synthesized=True))
    inject(vcpu, result)
    return _DONE


def inject(vcpu: Vcpu, event: Event) -> None:
    """Write EVENTINJ, end an interrupt shadow, and set RF for a fault where the CPU would.

    #BP and #OF keep nRIP as the exit stored it: their handler returns to the next instruction.
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
            vcpu.injected_with_rf = word
