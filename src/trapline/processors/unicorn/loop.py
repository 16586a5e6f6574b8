"""The loop of a run: enter the guest and answer what it stops for, until the hypervisor is to decide."""

from typing import Final

from trapline.arch.consistency import is_illegal, why_invalid
from trapline.arch.events import VALID, decode, is_software
from trapline.arch.exits import ExitCode
from trapline.arch.vmcb import Vmcb
from trapline.machine.processor import Outcome

from .answers import Answers
from .breakpoints import Breakpoints
from .cpu import Cpu
from .event_window import EventWindow
from .pending import Pending
from .state import State
from .stops import EXIT, RESUME, Next

_OUTCOMES: Final = {Next.EXIT: Outcome.VMEXIT, Next.BREAKPOINT: Outcome.BREAKPOINT}


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
    ) -> None:
        self._vmcb, self._control = vmcb, vmcb.control
        self._state, self._cpu = state, cpu
        self._window, self._pending, self._answers = window, pending, answers
        self._breakpoints = breakpoints

    def run(self, deadline: float | None) -> Outcome:
        """Run the guest; OFF: the machine has a request."""
        if self._inject() is EXIT:
            return Outcome.VMEXIT
        cpu, state, pending, window = self._cpu, self._state, self._pending, self._window
        answer, pacemaker = self._answers.answer, window.pacemaker
        window.set_deadline(deadline)
        while True:
            if pending.due or cpu.halted:
                self._breakpoints.tidy()
                outcome = window.service()
                if outcome is not None:
                    return outcome
            pacemaker.running = True
            try:
                event = state.enter(unchanged=cpu.generation is not None)
            finally:
                pacemaker.running = False
            state.collect()
            cpu.generation = state.generation
            if pending.ended:
                continue
            follows = answer(event)
            if follows is not RESUME:
                return _OUTCOMES[follows]

    def _inject(self) -> Next:
        """Check the VMCB and deliver the event of EVENTINJ."""
        control, cpu, state = self._control, self._cpu, self._state
        changed = state.changed()
        cpu.generation = None if changed else state.generation
        if changed and why_invalid(self._vmcb) is not None:
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
