"""The loop of a run: enter the guest and answer what it stops for, until the hypervisor is to decide."""

from collections.abc import Callable
from typing import Final

from trapline.arch.consistency import is_illegal, why_invalid
from trapline.arch.events import VALID, decode, is_software
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.machine.processor import Outcome, Watchpoint

from .answers import Answers
from .binding import Binding
from .breakpoints import Breakpoints
from .cpu import Cpu
from .event_window import EventWindow
from .hook_flags import HookFlags
from .pending import Pending
from .simd import SimdChecks
from .state import State
from .stops import DEBUG_TRAP, EXIT, INTERCEPTED, RESUME, Next
from .watchpoints import Watchpoints

_VMEXIT: Final = Outcome.VMEXIT
_OUTCOMES: Final = {Next.BREAKPOINT: Outcome.BREAKPOINT, Next.WATCHPOINT: Outcome.WATCHPOINT}


class RunLoop:
    """VMRUN on the VMCB, and everything until its #VMEXIT."""

    def __init__(
        self,
        vmcb: Vmcb,
        state: State,
        cpu: Cpu,
        window: EventWindow,
        pending: Pending,
        answers: Answers,
        breakpoints: Breakpoints,
        watchpoints: Watchpoints,
        hook_flags: HookFlags,
        simd: SimdChecks,
        binding: Binding,
    ) -> None:
        self._vmcb, self._control = vmcb, vmcb.control
        self._state, self._cpu = state, cpu
        self._window, self._pending, self._answers = window, pending, answers
        self._breakpoints, self._watchpoints = breakpoints, watchpoints
        self._hook_flags, self._simd, self._binding = hook_flags, simd, binding
        self._plain = state.enter, answers.answer
        self._hooked = self._enter_hooked, self._answer_hooked
        """How the guest is entered and how its stops are answered, with and without hooks on instructions."""
        self.hit: Watchpoint | None = None
        """See `machine.Processor.hit`."""
        self._db_pending = False
        """The instruction that hit a watchpoint also raised a single-step or breakpoint trap."""

    def run(self, deadline: float | None) -> Outcome:
        """Run the guest; OFF: the machine has a request."""
        if self._inject() is EXIT:
            return _VMEXIT
        cpu, state, pending, window = self._cpu, self._state, self._pending, self._window
        if cpu.halted:
            cpu.wake_moved()
        pacemaker, binding = window.pacemaker, self._binding
        enter, answer = self._hooked if binding.hooks_code else self._plain
        window.set_deadline(deadline)
        while True:
            if pending.due or cpu.halted:
                self._breakpoints.tidy()
                if self._simd.due:
                    self._simd.install()
                enter, answer = self._hooked if binding.hooks_code else self._plain
                outcome = window.service()
                if outcome is not None:
                    return outcome
            pacemaker.running = True
            try:
                event = enter(unchanged=cpu.generation is not None)
            finally:
                pacemaker.running = False
            state.collect()
            cpu.generation = state.generation
            if pending.ended:
                continue
            follows = answer(event)
            if follows is Next.EXECUTE:
                follows = self._execute(event, answer)
            if follows is not RESUME:
                return _VMEXIT if follows is EXIT else _OUTCOMES[follows]  # a look in a table takes longer

    def _execute(self, event: int, answer: Callable[[int], Next]) -> Next:
        """Let Unicorn execute the instruction of an intercept, and answer the event that follows."""
        event = self._state.step(event - INTERCEPTED)
        self._state.collect()
        return answer(event)

    def _enter_hooked(self, *, unchanged: bool) -> int:
        if self._watchpoints.active:
            self._watchpoints.follow_tables()
        return self._state.enter(unchanged=unchanged)

    def _answer_hooked(self, event: int) -> Next:
        self._hook_flags.repair(event)
        hit = self._watchpoints.take_hit(event)
        if hit is None:
            return self._answers.answer(event)
        self.hit, self._db_pending = hit, event == DEBUG_TRAP
        return Next.WATCHPOINT

    def reset(self) -> None:
        """Drop a pending #DB: the machine was reset."""
        self._db_pending = False

    def _raise_pending_db(self) -> Next:
        """Raise the pending #DB of the instruction that hit a watchpoint, before the event of EVENTINJ."""
        self._db_pending = False
        control = self._control
        if control.intercept_exceptions >> Vector.DB & 1:
            return self._cpu.exit(EXCEPTION_EXITS.start + Vector.DB, vectoring=decode(control.event_inj))
        self._cpu.generation = None
        return self._cpu.raise_exception(Vector.DB)

    def _inject(self) -> Next:
        """Check the VMCB and deliver the event of EVENTINJ, after a pending #DB."""
        if self._db_pending and self._raise_pending_db() is EXIT:
            return EXIT
        control, cpu, state = self._control, self._cpu, self._state
        changed = state.changed()
        cpu.generation = state.generation
        if changed:
            cpu.generation, self._pending.due = None, True
            if why_invalid(self._vmcb) is not None:
                return cpu.exit(ExitCode.INVALID)
        injected = control.event_inj
        if injected & VALID and cpu.redeliver(injected):
            control.event_inj = injected & ~VALID
            return RESUME
        event = decode(injected)
        if event is None:
            return RESUME
        if is_illegal(event, self._vmcb):
            return cpu.exit(ExitCode.INVALID)
        control.event_inj = injected & ~VALID
        return cpu.deliver(event, control.nrip if is_software(event) else None)
