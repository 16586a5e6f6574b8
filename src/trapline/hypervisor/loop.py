"""The run loop of a vCPU, in its fixed order."""

from collections.abc import Callable
from typing import Final

from trapline.arch import reset
from trapline.arch.events import Event, decode, is_software
from trapline.arch.registers import RFLAGS
from trapline.arch.vmcb import dump
from trapline.machine.processor import Outcome

from .delivery import decide, inject
from .handlers import TABLE
from .intercepts import recalc_intercepts
from .stop import Resume, Stop, StopReason
from .vcpu import Undelivered, Vcpu

_HANDLERS: Final = TABLE.handlers()
_ENDS: Final = {
    Outcome.OFF: StopReason.OFF,
    Outcome.HALTED: StopReason.HALTED,
    Outcome.DEADLINE: StopReason.TIMEOUT,
    Outcome.BREAKPOINT: StopReason.BREAKPOINT,
}
_VMEXIT: Final = Outcome.VMEXIT
_REQUEUE: Final = Resume.REQUEUE


def run(vcpu: Vcpu, deadline: float | None, kicked: Callable[[], Stop | None]) -> Stop:
    """Run the guest until something stops it.

    `kicked` is called whenever the guest was stopped by `Processor.kick`, and may end the run. The order of an
    iteration is fixed:

    1. the processor executes VMRUN and comes back,
    2. what is not a #VMEXIT is answered (reset, kick, deadline, off),
    3. EXITINTINFO is saved as `vectoring` and the pending event is gone,
    4. an exit code without an owner ends the run with the VMCB shown,
    5. the code's owner handles it; an exception is shown to observers before delivery,
    6. an event whose delivery was interrupted by no exception, or by a discarded one, is injected again.
    """
    if vcpu.undelivered is not None:
        stop = run_on(vcpu, vcpu.undelivered)
        if stop is not None:
            return stop
    control, execute = vcpu.control, vcpu.processor.run
    while True:
        outcome = execute(deadline)
        if outcome is not _VMEXIT:
            stop = answer_outcome(vcpu, outcome, kicked)
            if stop is not None:
                return stop
            continue
        word = control.exit_int_info
        vcpu.vectoring = vectoring = decode(word) if word else None
        control.event_inj = 0
        if vcpu.injected_with_rf:
            take_rf_back(vcpu)
        handler = _HANDLERS.get(control.exit_code)
        if handler is None:
            return Stop(StopReason.FAILED, dump(vcpu.processor.vmcb))
        answer = handler(vcpu)
        if answer is _REQUEUE:
            requeue(vcpu, vectoring)
        elif isinstance(answer, Stop):
            return answer


def run_on(vcpu: Vcpu, undelivered: Undelivered) -> Stop | None:
    """Do what was decided about the exception that an observer stopped at."""
    vcpu.undelivered = None
    exit, decision = undelivered
    answer = decide(vcpu, exit, decision)
    if answer is _REQUEUE:
        requeue(vcpu, exit.vectoring)
    return answer if isinstance(answer, Stop) else None


def answer_outcome(vcpu: Vcpu, outcome: Outcome, kicked: Callable[[], Stop | None]) -> Stop | None:
    """Do what an outcome other than a #VMEXIT asks for; None: the guest goes on."""
    if outcome is Outcome.RESET:
        return _reset(vcpu)
    if outcome is Outcome.KICKED:
        return kicked()
    if outcome is Outcome.WATCHPOINT:
        return Stop(StopReason.WATCHPOINT, watchpoint=vcpu.processor.hit)
    return Stop(_ENDS[outcome])


def _reset(vcpu: Vcpu) -> Stop | None:
    vcpu.resets += 1
    policy = vcpu.policy
    if vcpu.resets > 1 and not policy.reboots:
        return Stop(StopReason.RESET)
    vcpu.vm_hsave_pa = 0
    vcpu.vectoring = vcpu.undelivered = None
    vcpu.injected_with_rf = 0
    processor = vcpu.processor
    reset.reset(processor.vmcb, processor.gprs, signature=processor.signature)
    if policy.enter is not None:
        policy.enter(processor.vmcb.save, processor.gprs)
    recalc_intercepts(vcpu)
    return None


def take_rf_back(vcpu: Vcpu) -> None:
    """A fault that was not delivered leaves RFLAGS as it was."""
    if vcpu.control.exit_int_info == vcpu.injected_with_rf:
        vcpu.save.rflags &= ~RFLAGS.RF
    vcpu.injected_with_rf = 0


def requeue(vcpu: Vcpu, event: Event | None) -> None:
    """Inject what was being delivered again."""
    if event is None:
        return
    # INT n, INT3 and INTO execute again by themselves: RIP is still on them, and nRIP is gone.
    # Everything else is owed to the guest.
    if not is_software(event):
        inject(vcpu, event)
