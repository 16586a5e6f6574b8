"""The vCPU's run loop."""

from typing import TYPE_CHECKING

from trapline.arch import reset
from trapline.arch.events import Event, EventType, decode
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import dump
from trapline.machine.processor import Outcome, Processor

from . import handlers
from .delivery import deliver, error_code, forward, inject
from .observers import ExceptionExit
from .stop import Reason, Stop

if TYPE_CHECKING:
    from .vm import Vm

_ENDS = {Outcome.OFF: Reason.OFF, Outcome.HALTED: Reason.HALTED, Outcome.DEADLINE: Reason.DEADLINE}


class Vcpu:
    """One virtual CPU. Its registers are the VMCB's and the processor's: nothing is kept twice."""

    def __init__(self, vm: "Vm", processor: Processor, number: int) -> None:
        self.vm = vm
        self.processor = processor
        self.number = number
        self.control, self.save = processor.vmcb.control, processor.vmcb.save
        """Views of the VMCB's two areas, made once."""
        self.vectoring: Event | None = None
        """What was being delivered at the last exit."""
        self.undelivered: ExceptionExit | None = None
        """The exception an observer stopped at."""
        self.lent_rf = 0
        """The event for which RFLAGS.RF was set, as the EVENTINJ word; 0: none."""
        self.vm_hsave_pa = 0
        """The guest's idea of VM_HSAVE_PA."""
        self.resets = 0
        self._handlers = handlers.TABLE.handlers()

    def run(self, deadline: float | None = None) -> Stop:
        """Run the guest until something stops it.

        The order of an iteration is fixed:

        1. the processor executes VMRUN and comes back,
        2. what is no #VMEXIT is answered (reset, kick, deadline, off),
        3. EXITINTINFO is saved as `vectoring` and the pending event is gone,
        4. an exit code without an owner ends the run with the VMCB shown,
        5. the code's owner handles it; an exception is shown to observers before delivery,
        6. an event whose delivery was interrupted by no exception, or by a discarded one, is injected again.
        """
        if self.undelivered is not None:
            exit, self.undelivered = self.undelivered, None
            stop = deliver(self, exit)
            if stop is not None:
                return stop
        control, run = self.control, self.processor.run
        while True:
            outcome = run(deadline)
            if outcome is not Outcome.VMEXIT:
                stop = self._answer(outcome)
                if stop is not None:
                    return stop
                continue
            vectoring = control.exit_int_info
            self.vectoring = decode(vectoring) if vectoring else None
            control.event_inj = 0
            if self.lent_rf:
                self._take_rf_back()
            handler = self._handlers.get(control.exit_code)
            if handler is None:
                return self.unexpected()
            stop = handler(self)
            if stop is not None:
                return stop
            if self.vectoring is not None:
                self._requeue(self.vectoring)

    def raise_exception(self, vector: Vector) -> Stop | None:
        """Raise an exception for the instruction at RIP that the hypervisor answers itself."""
        code = 0 if error_code(vector, 0) is not None else None
        event = Event(vector, EventType.EXCEPTION, code)
        exit = ExceptionExit(event, self.vectoring, None, synthesized=True)
        return forward(self, exit) if self.vm.mask >> vector & 1 else deliver(self, exit)

    def skip_instruction(self) -> Stop | None:
        """Finish an instruction that the hypervisor executed.

        RIP moves to nRIP, RF and the interrupt shadow end, and under TF a #DB is owed.
        """
        vmcb = self.processor.vmcb
        vmcb.save.rip = vmcb.control.nrip
        flags = vmcb.save.rflags
        vmcb.save.rflags = flags & ~RFLAGS.RF
        vmcb.control.interrupt_shadow = 0
        if not flags & RFLAGS.TF:
            return None
        vmcb.save.dr6 |= DR6.BS
        return self.raise_exception(Vector.DB)

    def unexpected(self) -> Stop:
        """Stop at an exit that nobody asked for, with the VMCB in words."""
        return Stop(Reason.UNEXPECTED, dump(self.processor.vmcb))

    def _answer(self, outcome: Outcome) -> Stop | None:
        if outcome is Outcome.RESET:
            return self._reset()
        if outcome is Outcome.KICKED:
            self.vm.settle()
            return None
        return Stop(_ENDS[outcome])

    def _reset(self) -> Stop | None:
        self.resets += 1
        if self.resets > 1 and not self.vm.reboots:
            return Stop(Reason.RESET)
        self.vm_hsave_pa = 0
        self.vectoring = self.undelivered = None
        self.lent_rf = 0
        reset.reset(self.processor.vmcb, self.processor.gprs, signature=self.processor.signature)
        if self.vm.enter is not None:
            self.vm.enter(self.processor.vmcb.save, self.processor.gprs)
        self.vm.recalc_intercepts(self)
        return None

    def _take_rf_back(self) -> None:
        """A fault that was not delivered leaves RFLAGS as it was."""
        if self.control.exit_int_info == self.lent_rf:
            self.save.rflags &= ~RFLAGS.RF
        self.lent_rf = 0

    def _requeue(self, event: Event) -> None:
        # INT n, INT3 and INTO execute again by themselves: RIP is still on them, and nRIP is gone.
        # Everything else is owed to the guest.
        software = event.type == EventType.EXCEPTION and event.vector in (Vector.BP, Vector.OF)
        if event.type != EventType.SOFT and not software:
            inject(self, event)
