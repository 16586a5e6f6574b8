"""Step a stopped guest: one instruction, or the delivery of one event, after which it is at the handler's first one.

The guest does not notice. Interrupts of the machine are held back meanwhile (V_INTR_MASKING, APM 15.21.1); all
exceptions are intercepted, shown to observers and recorded as in a run, and then delivered by `arch.delivery`, or
natively up to a breakpoint at the handler. An NMI is an event of its own.

What cannot be had: where the processor has no breakpoints, MOV SS, POP SS and what else defers the trap (APM 13.1.4)
are stepped together with the next instruction, and an event of a task gate stays pending until the guest runs.
"""

from typing import Final

from trapline.arch.events import VALID
from trapline.arch.exits import ExitCode
from trapline.asm.decoder import instruction_at_rip
from trapline.errors import UsageError
from trapline.machine.linear import code_address, next_rip
from trapline.machine.processor import Outcome

from .emulate import skip_instruction
from .intercepts import WAITS, intercept_for_step, recalc_intercepts
from .loop import RESETS, answer_outcome, run_on
from .step_delivery import DB_EXIT, STEP, Kicked, answer_exit, answered, deliver_pending, insert, insert_also, take_nmi
from .stop import Stop, StopReason
from .trap_flag import Armed, Effect, arm, effect_of, finish, is_complete, is_repeated, next_address, undo
from .vcpu import Vcpu

_WITHOUT_NRIP: Final = (*WAITS, ExitCode.PAUSE, ExitCode.ICEBP)
_NOWHERE: Final[frozenset[int]] = frozenset()


def step(vcpu: Vcpu, deadline: float | None, kicked: Kicked) -> Stop:
    """Execute one instruction, or deliver an event that is due before or because of it.

    Under REP an iteration is a step. HLT and MWAIT are complete when an interrupt is there to be taken, for which they
    wait until `deadline`; with DEADLINE and INTERRUPTED the guest is still before the instruction.
    """
    while not vcpu.resets:
        stop = answer_outcome(vcpu, vcpu.processor.run(deadline), kicked)
        if stop is not None:
            return stop
    if vcpu.undelivered is not None:
        stop = run_on(vcpu, vcpu.undelivered)
        if stop is not None:
            return stop
    return _steps(vcpu, deadline, kicked, whole=False)


def begin_run(vcpu: Vcpu, deadline: float | None, kicked: Kicked, *, steps: bool = True) -> Stop | None:
    """Get past what a run must not begin with, and give the vCPU what it needs to run; a Stop: it ended otherwise.

    Such are a breakpoint, and an interrupt shadow, which not every processor loads (TCG of QEMU 7.2). Unless `steps`:
    it is not the CPU that stopped last, and a breakpoint that it is at has not been reported, unless it stopped there.
    """
    at_breakpoint = vcpu.breakpoints and code_address(vcpu.save) in vcpu.breakpoints
    steps = (steps or vcpu.stopped_at == code_address(vcpu.save)) and not vcpu.waits
    vcpu.stopped_at = None
    if steps and (at_breakpoint or vcpu.control.interrupt_shadow & 1) and vcpu.undelivered is None:
        stop = _steps(vcpu, deadline, kicked, whole=True)
        if stop.reason is not StopReason.STEP:
            return stop
    if vcpu.stepping:
        recalc_intercepts(vcpu)
    insert(vcpu, vcpu.breakpoints)
    return None


def _steps(vcpu: Vcpu, deadline: float | None, kicked: Kicked, *, whole: bool) -> Stop:
    """Make one step; `whole`: a REP with all its iterations is one."""
    control = vcpu.control
    while True:
        if not vcpu.stepping:
            intercept_for_step(vcpu)
        insert(vcpu, _NOWHERE)
        if control.event_inj & VALID:
            stop = deliver_pending(vcpu, kicked)
        else:
            stop = _execute(vcpu, deadline, kicked, whole=whole)
        if stop is not None:
            return stop
        if vcpu.waits:  # an INIT has come, which it had yet to be told
            return Stop(StopReason.STEP, f"CPU {vcpu.number} waits for a startup IPI")


def _execute(vcpu: Vcpu, deadline: float | None, kicked: Kicked, *, whole: bool) -> Stop | None:
    """Execute the instruction at RIP; None: go on, as an event is due or nothing has happened."""
    instruction = instruction_at_rip(vcpu.save, vcpu.processor.memory)
    effect = effect_of(instruction)
    if whole and is_repeated(instruction):
        effect = Effect.UNTRAPPED
    if effect is Effect.UNTRAPPED:
        try:
            insert_also(vcpu, frozenset((next_address(vcpu, instruction),)))
        except UsageError:
            effect = Effect.KEEP
    vcpu.injected_with_rf = 0
    armed = arm(vcpu, instruction, effect)
    outcome = _run(vcpu, deadline, kicked) if whole else vcpu.processor.run(None)
    if outcome is Outcome.VMEXIT:
        return _after_exit(vcpu, armed, deadline, kicked)
    if outcome in RESETS:
        return answer_outcome(vcpu, outcome, kicked) or STEP
    if outcome is Outcome.BREAKPOINT:  # the one after the instruction
        return STEP
    if outcome is Outcome.WATCHPOINT:
        return _after_watchpoint(vcpu, armed, kicked)
    undo(vcpu, armed)
    if outcome is Outcome.HALTED:  # since before the step; what could wake the guest is held back
        return _wait(vcpu, deadline, kicked, vcpu.save.rip)
    return outcome if isinstance(outcome, Stop) else answer_outcome(vcpu, outcome, kicked)


def _after_exit(vcpu: Vcpu, armed: Armed, deadline: float | None, kicked: Kicked) -> Stop | None:
    control = vcpu.control
    code = control.exit_code
    if code == DB_EXIT and is_complete(vcpu, armed):
        return answer_exit(vcpu) if finish(vcpu, armed) else STEP
    undo(vcpu, armed, debug=code == DB_EXIT)
    if code in _WITHOUT_NRIP:
        control.nrip = next_rip(vcpu.save, armed.instruction.len)
    if code in WAITS:
        return _wait(vcpu, deadline, kicked, control.nrip)
    return take_nmi(vcpu, kicked) if code == ExitCode.NMI else answer_exit(vcpu)


def _after_watchpoint(vcpu: Vcpu, armed: Armed, kicked: Kicked) -> Stop | None:
    """Collect the trap of TF, which comes with the next run. A #DB that the guest is due too stays pending."""
    stop = answer_outcome(vcpu, Outcome.WATCHPOINT, kicked)
    if armed.effect is Effect.UNTRAPPED:
        return stop
    outcome = vcpu.processor.run(None)
    while outcome is Outcome.KICKED:
        stop = kicked() or stop
        outcome = vcpu.processor.run(None)
    if outcome is not Outcome.VMEXIT:
        undo(vcpu, armed)
        return answer_outcome(vcpu, outcome, kicked)
    other = _after_exit(vcpu, armed, None, kicked)
    return stop if other is None or other.reason is StopReason.STEP else other


def _run(vcpu: Vcpu, deadline: float | None, kicked: Kicked) -> Outcome | Stop:
    """Run until a deadline, at which the guest is stopped: that is a Stop."""
    processor = vcpu.processor
    outcome = processor.run(deadline)
    if outcome is Outcome.DEADLINE:
        processor.kick()
        outcome = processor.run(None)
        if outcome is Outcome.KICKED:
            return kicked() or Stop(StopReason.TIMEOUT)
    return outcome


def _wait(vcpu: Vcpu, deadline: float | None, kicked: Kicked, after: int) -> Stop | None:
    """Execute the HLT or MWAIT before RIP `after`: wait for an interrupt, and leave it to be taken."""
    save, control = vcpu.save, vcpu.control
    rip = save.rip
    intercept_for_step(vcpu, waiting=True)
    outcome = _run(vcpu, deadline, kicked)
    if outcome not in RESETS:
        intercept_for_step(vcpu)
    if outcome is Outcome.VMEXIT:
        if control.exit_code not in (ExitCode.INTR, ExitCode.NMI):
            return answer_exit(vcpu)
        vcpu.vectoring, control.nrip = None, after
        return answered(vcpu, skip_instruction(vcpu))
    if isinstance(outcome, Stop) or outcome is Outcome.KICKED:
        if rip != after:  # an interrupt must not come before the HLT that waits for it
            save.rip, control.interrupt_shadow = rip, 1
        return outcome if isinstance(outcome, Stop) else kicked()
    return answer_outcome(vcpu, outcome, kicked) or STEP
