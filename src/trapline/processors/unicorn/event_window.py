"""Everything that is not the guest's next instruction: requests, the time, A20, interrupts (APM vol. 2, 8.5, 15.21)."""

import time
from typing import Final

from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import IntCtl, Vmcb
from trapline.devices.machine import BareMachine
from trapline.machine.processor import Outcome

from .bus import MachineBus
from .cpu import Cpu
from .engine import Engine
from .forwarding import Forwarding
from .pacemaker import Pacemaker
from .sigint import DeferredSigint
from .state import State
from .uc_context import HF2_NMI

SECOND: Final = 1_000_000_000
_LOW: Final = 0xFFFF_FFFF


class EventWindow:
    """Looks around where the CPU stands between two instructions, and sees to it that it comes to stand there."""

    def __init__(
        self,
        vmcb: Vmcb,
        machine: BareMachine,
        bus: MachineBus,
        engine: Engine,
        state: State,
        cpu: Cpu,
        forwarding: Forwarding,
        started: int,
    ) -> None:
        """`started` is the time of `time.monotonic_ns` when the machine's clock was zero."""
        self._control, self._save = vmcb.control, vmcb.save
        self._machine, self._bus, self._engine = machine, bus, engine
        self._state, self._cpu, self._forwarding = state, cpu, forwarding
        self._started = started
        self.kicked = False
        self._deadline: float | None = None
        self.pacemaker = pacemaker = Pacemaker(self._call_back)
        self._sigint = DeferredSigint(self._call_back, lambda: pacemaker.running)

    def kick(self) -> None:
        """See `machine.Processor.kick`."""
        self.kicked = True
        self.pacemaker.wake()

    def close(self) -> None:
        """End the thread, and give Ctrl-C back."""
        self.pacemaker.close()
        self._sigint.close()

    def set_deadline(self, deadline: float | None) -> None:
        """Look around at this time of `time.monotonic` at the latest."""
        if deadline != self._deadline:
            self._deadline = deadline
            self._set_alarm()

    def settle(self) -> None:
        """Hand on the records that wait, and the Ctrl-C."""
        if self._forwarding.waits:
            self._forwarding.flush()
        if self._sigint.pending:
            self._sigint.take()

    def look(self) -> Outcome | None:
        """Look at everything; None: the guest goes on; OFF: the machine has a request."""
        machine, bus = self._machine, self._bus
        while True:
            bus.attention = False
            self.settle()
            if self.kicked:
                self.kicked = False
                bus.attention = True
                return Outcome.KICKED
            machine.advance()
            if machine.request is not None:
                return Outcome.OFF
            if self._deadline is not None and time.monotonic() >= self._deadline:
                bus.attention = True
                return Outcome.DEADLINE
            self._set_a20()
            if not self._interrupt():
                return Outcome.VMEXIT
            self._set_alarm()
            if not self._cpu.halted:
                return None
            if not self._rest():
                return Outcome.HALTED

    def _call_back(self) -> None:
        """Let the loop look around. A stop alone is lost where the guest does nothing but raise exceptions."""
        self._bus.attention = True
        self._engine.stop()

    def _interrupt(self) -> bool:
        """Deliver the NMI or interrupt that waits, or ask to hear when the guest can take it; False: a #VMEXIT."""
        control, machine, state = self._control, self._machine, self._state
        context = self._engine.context
        state.window = False
        if machine.nmi_pending() and context.hflags2 & HF2_NMI:
            state.intercept_iret()
        elif machine.nmi_pending():
            if is_intercepted(control, ExitCode.NMI):
                return self._cpu.exit(ExitCode.NMI)
            machine.take_nmi()
            context.hflags2 |= HF2_NMI
            return self._cpu.deliver(Event(Vector.NMI, EventType.NMI), None)
        virtual = control.int_ctl
        wanted = bool(virtual & IntCtl.V_IRQ) and bool(
            virtual & IntCtl.V_IGN_TPR or virtual >> IntCtl.PRIORITY_SHIFT & 0xF > (virtual & IntCtl.V_TPR) >> 4
        )
        if machine.pending() is None and not wanted:
            return True
        if not self._save.rflags & RFLAGS.IF or control.interrupt_shadow & 1:
            state.window = True
            return True
        if machine.pending() is not None:
            if is_intercepted(control, ExitCode.INTR):
                return self._cpu.exit(ExitCode.INTR)
            vector = machine.acknowledge()
        else:
            if is_intercepted(control, ExitCode.VINTR):
                return self._cpu.exit(ExitCode.VINTR)
            control.int_ctl = virtual & ~IntCtl.V_IRQ
            vector = virtual >> IntCtl.VECTOR_SHIFT & 0xFF
        self._bus.attention = machine.pending() is not None
        return self._cpu.deliver(Event(vector, EventType.INTR), None)

    def _rest(self) -> bool:
        """Wait, halted, for what comes next; False: nothing will."""
        due = self._machine.next_event()
        if due is None or not (self._save.rflags & RFLAGS.IF or self._machine.nmi_pending()):
            return False
        seconds = (self._started + due - time.monotonic_ns()) / SECOND
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - time.monotonic())
        if seconds > 0:
            self.pacemaker.rest(seconds)
        return True

    def _set_alarm(self) -> None:
        due = self._machine.next_event()
        alarm = None if due is None else (self._started + due) / SECOND
        if self._deadline is not None and (alarm is None or self._deadline < alarm):
            alarm = self._deadline
        self.pacemaker.set_alarm(alarm)

    def _set_a20(self) -> None:
        mask = _LOW if self._machine.a20 else _LOW & ~(1 << 20)
        context = self._engine.context
        if context.a20_mask != mask:
            context.a20_mask = mask
            self._engine.flush_tlb()
