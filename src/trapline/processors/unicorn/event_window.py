"""Everything that is not the guest's next instruction: requests, the time, A20, interrupts."""

import time

from trapline.devices import SECOND
from trapline.devices.machine import BareMachine
from trapline.machine.processor import Outcome

from .clock import Clock
from .cpu import Cpu
from .forwarding import Forwarding
from .host import Host
from .interrupts import Interrupts
from .pending import Pending
from .state import State
from .stops import EXIT


class EventWindow:
    """Services kicks, deadlines, timers, NMIs and interrupts at an instruction boundary."""

    def __init__(
        self,
        machine: BareMachine,
        pending: Pending,
        interrupts: Interrupts,
        state: State,
        cpu: Cpu,
        forwarding: Forwarding,
        host: Host,
        clock: Clock,
        *,
        alone: bool,
    ) -> None:
        """`clock` is the machine's.

        `alone`: a HLT is waited for here; otherwise it is HALTED at once, for other CPUs may execute meanwhile.
        """
        self._machine, self._pending, self._interrupts = machine, pending, interrupts
        self._state, self._cpu, self._forwarding = state, cpu, forwarding
        self._clock, self._host, self._alone = clock, host, alone
        self._deadline: float | None = None
        self.pacemaker = host.pacemaker

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self._pending.kicked = self._pending.due = True
        self.pacemaker.wake()

    def set_deadline(self, deadline: float | None) -> None:
        """Stop the guest, which this thread runs, at this time of `time.monotonic` at the latest."""
        self._host.enter()
        if deadline != self._deadline:
            self._deadline = deadline
            self._set_alarm()

    def service_requests(self) -> None:
        """Hand on the records that wait, and the Ctrl-C."""
        if self._forwarding.waits:
            self._forwarding.flush()
        if self._host.sigint.pending:
            self._host.sigint.take()

    def service(self) -> Outcome | None:
        """Service everything that is pending; None: the guest resumes; OFF: the machine has a request."""
        machine, pending = self._machine, self._pending
        while True:
            pending.due = False
            self.pacemaker.unanswered = 0.0
            self.service_requests()
            if pending.kicked:
                pending.kicked = False
                pending.due = True
                return Outcome.KICKED
            machine.advance()
            if machine.request is not None:
                return Outcome.OFF
            if self._deadline is not None and time.monotonic() >= self._deadline:
                pending.due = True
                return Outcome.DEADLINE
            self._state.set_a20(machine.a20)
            if self._interrupts.deliver() is EXIT:
                pending.due = True  # it is still pending
                return Outcome.VMEXIT
            self._set_alarm()
            if not self._cpu.halted:
                return None
            if not self._rest():
                return Outcome.HALTED

    def _rest(self) -> bool:
        """Wait, halted, for what comes next; False: nothing will, or others are to execute."""
        due = self._machine.next_event()
        if not self._alone or due is None or not self._interrupts.can_wake():
            return False
        seconds = (self._clock.started + due - self._clock.now()) / SECOND
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        if seconds > 0:
            self.pacemaker.rest(seconds)
        return True

    def _set_alarm(self) -> None:
        due = None if self._clock.counts else self._machine.next_event()
        alarm = None if due is None else (self._clock.started + due) / SECOND
        if self._deadline is not None and (alarm is None or self._deadline < alarm):
            alarm = self._deadline
        self.pacemaker.set_alarm(alarm)
