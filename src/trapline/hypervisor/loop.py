"""The run loop of a vCPU, in its fixed order."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from trapline.arch import reset
from trapline.arch.events import Event, decode, is_software
from trapline.arch.registers import RFLAGS
from trapline.machine.processor import Outcome

from .delivery import decide, inject
from .handlers import TABLE
from .intercepts import recalc_intercepts
from .stop import Answer, Resume, Stop, StopReason
from .unhandled import unhandled
from .vcpu import Undelivered, Vcpu

HANDLERS: Final = TABLE.handlers()
_ENDS: Final = {
    Outcome.OFF: StopReason.OFF,
    Outcome.HALTED: StopReason.HALTED,
    Outcome.LEAVING: StopReason.LEAVING,
    Outcome.DEADLINE: StopReason.TIMEOUT,
    Outcome.BREAKPOINT: StopReason.BREAKPOINT,
}
RESETS: Final = (Outcome.RESET, Outcome.WOKEN)
"""The machine is as after a reset."""
_VMEXIT: Final = Outcome.VMEXIT
_DONE: Final = Resume.DONE
_REQUEUE: Final = Resume.REQUEUE


def run(vcpu: Vcpu, deadline: float | None, kicked: Callable[[], Stop | None]) -> Stop:
    """Run the guest until it stops.

    `kicked` is called when `Processor.kick` stopped the guest, and may end the run. The order of an iteration is fixed:

    1. the processor executes VMRUN and returns an outcome,
    2. an outcome other than a #VMEXIT is handled: reset, kick, deadline, power off,
    3. EXITINTINFO is saved as `vectoring`, and EVENTINJ is cleared,
    4. an exit code without a handler ends the run with a dump of the VMCB,
    5. the handler runs; observers are asked about an exception before it is delivered,
    6. an event under delivery is injected again, unless an exception took its place.
    """
    if vcpu.undelivered is not None:
        stop = run_on(vcpu, vcpu.undelivered)
        if stop is not None:
            return stop
    execute = vcpu.processor.run
    while True:
        outcome = execute(deadline)
        if outcome is not _VMEXIT:
            stop = answer_outcome(vcpu, outcome, kicked)
            if stop is not None:
                return stop
            continue
        answer = answer_exit(vcpu, HANDLERS)
        if answer is _DONE:
            continue
        if isinstance(answer, Stop):
            return answer
        requeue(vcpu, vcpu.vectoring)


def answer_exit(vcpu: Vcpu, handlers: Mapping[int, Callable[[Vcpu], Answer]]) -> Answer:
    """Do what has to be done at a #VMEXIT, and return what the handler of its code answers: 3 to 5 of `run`."""
    control = vcpu.control
    word = control.exit_int_info
    vcpu.vectoring = decode(word) if word else None
    control.event_inj = 0
    if vcpu.injected_with_rf:
        if word == vcpu.injected_with_rf:  # the fault was not delivered: take back the RF that `inject` set
            vcpu.save.rflags &= ~RFLAGS.RF
        vcpu.injected_with_rf = 0
    handler = handlers.get(control.exit_code)
    if handler is None:
        return unhandled(vcpu.processor.vmcb)
    return handler(vcpu)


def run_on(vcpu: Vcpu, undelivered: Undelivered) -> Stop | None:
    """Do what was decided about the exception at which the guest is stopped."""
    vcpu.undelivered = None
    answer = decide(vcpu, *undelivered)
    if answer is _REQUEUE:
        requeue(vcpu, undelivered.exit.vectoring)
    return answer if isinstance(answer, Stop) else None


def answer_outcome(vcpu: Vcpu, outcome: Outcome, kicked: Callable[[], Stop | None]) -> Stop | None:
    """Handle an outcome other than a #VMEXIT; None: the guest resumes."""
    if outcome in RESETS:
        return _reset(vcpu.cpus, by_guest=outcome is Outcome.RESET)
    if outcome is Outcome.KICKED:
        return kicked()
    if outcome is Outcome.WATCHPOINT:
        return Stop(StopReason.WATCHPOINT, watchpoint=vcpu.processor.hit)
    if outcome is Outcome.INIT:
        vcpu.control.event_inj = vcpu.control.interrupt_shadow = 0
        reset.init(vcpu.processor.vmcb, vcpu.processor.gprs, signature=vcpu.processor.signature)
        _start_again(vcpu)
        vcpu.waits = True
        return None
    if outcome is Outcome.SIPI:
        vcpu.startup = vcpu.control.exit_info_1
        reset.start_up(vcpu.save, vcpu.startup)
        vcpu.waits = False
        return None
    return Stop(_ENDS[outcome])


def _reset(vcpus: Sequence[Vcpu], *, by_guest: bool) -> Stop | None:
    """Let the boot CPU of a machine start, and the others wait for a startup IPI."""
    first = vcpus[0]
    policy = first.policy
    for vcpu in vcpus:
        vcpu.resets += by_guest
    if by_guest and first.resets > 1 and not policy.reboots:
        return Stop(StopReason.RESET)
    for vcpu in vcpus:
        processor = vcpu.processor
        reset.reset(processor.vmcb, processor.gprs, signature=processor.signature)
        vcpu.vm_hsave_pa = 0
        vcpu.waits = vcpu is not first
        if policy.enter is not None and vcpu is first:
            policy.enter(vcpu.save, processor.gprs)
        _start_again(vcpu)
    return None


def _start_again(vcpu: Vcpu) -> None:
    """Forget what was under way before a RESET or INIT, and calculate the intercepts."""
    vcpu.vectoring = vcpu.undelivered = vcpu.startup = None
    vcpu.injected_with_rf = 0
    recalc_intercepts(vcpu)


def requeue(vcpu: Vcpu, event: Event | None) -> None:
    """Inject the event under delivery again."""
    if event is None:
        return
    # INT n, INT3 and INTO execute again: RIP is still at the instruction.
    if not is_software(event):
        inject(vcpu, event)
