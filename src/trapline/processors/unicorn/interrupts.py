"""Interrupts and NMIs at an instruction boundary (APM vol. 2, 8.2, 8.5, 15.21)."""

from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import CR0, RFLAGS
from trapline.arch.vectors import VECTORS, Vector
from trapline.arch.vmcb import ControlArea, IntCtl, Vmcb
from trapline.devices.local import LocalInterrupts

from .cpu import Cpu
from .state import State
from .stops import RESUME, Next


class Interrupts:
    """Delivers what the machine and the VMCB have for the guest, as far as the guest can take it."""

    def __init__(self, vmcb: Vmcb, pins: LocalInterrupts, state: State, cpu: Cpu) -> None:
        """`pins` are those of this CPU."""
        self._control, self._save = vmcb.control, vmcb.save
        self._pins, self._state, self._cpu = pins, state, cpu

    def can_wake(self) -> bool:
        """Return whether an interrupt of the machine that comes later would end HLT."""
        takes = self._save.rflags & RFLAGS.IF and not self._control.int_ctl & IntCtl.V_INTR_MASKING
        return bool(takes) or self._pins.nmi_pending()

    def wait(self) -> bool:
        """Return whether an NMI or interrupt waits that the guest, which is halted, can take."""
        nmi = self._pins.nmi_pending() and not self._state.nmi_blocked
        return nmi or bool(self._save.rflags & RFLAGS.IF and self._physical())

    def deliver(self) -> Next:
        """Deliver the NMI or interrupt that waits, and ask for a stop as soon as the guest can take the next one."""
        pins, state = self._pins, self._state
        if not pins.nmi_pending():
            answer = self._deliver_interrupt()
        elif state.nmi_blocked:
            state.intercept_iret()
            answer = self._deliver_interrupt()
        else:
            answer = self._deliver_nmi()
        state.window = self._physical() or _virtual(self._control)
        return answer

    def _deliver_nmi(self) -> Next:
        if is_intercepted(self._control, ExitCode.NMI):
            return self._exit(ExitCode.NMI)
        self._pins.take_nmi()
        self._state.nmi_blocked = True
        return self._cpu.deliver(Event(Vector.NMI, EventType.NMI), None)

    def _deliver_interrupt(self) -> Next:
        control = self._control
        if not self._save.rflags & RFLAGS.IF or control.interrupt_shadow & 1:
            return RESUME
        if self._physical():
            if is_intercepted(control, ExitCode.INTR):
                return self._exit(ExitCode.INTR)
            vector = self._pins.acknowledge()
            if vector < len(VECTORS) and self._save.cr0 & CR0.PE:
                self._pins.arrived |= 1 << vector
        elif _virtual(control):
            if is_intercepted(control, ExitCode.VINTR):
                return self._exit(ExitCode.VINTR)
            vector = control.int_ctl >> IntCtl.VECTOR_SHIFT & 0xFF
            control.int_ctl &= ~IntCtl.V_IRQ
        else:
            return RESUME
        return self._cpu.deliver(Event(vector, EventType.INTR), None)

    def _exit(self, code: ExitCode) -> Next:
        """Leave the guest, which was woken: VMRUN knows nothing of HLT."""
        self._cpu.halted = False
        return self._cpu.exit(code)

    def _physical(self) -> bool:
        """Return whether the machine has an interrupt for the guest, and the host does not hold it (APM 15.21.1)."""
        return self._pins.pending() is not None and not self._control.int_ctl & IntCtl.V_INTR_MASKING


def _virtual(control: ControlArea) -> bool:
    """Return whether the VMCB has an interrupt for the guest that V_TPR does not hold back (APM 15.21.4)."""
    virtual = control.int_ctl
    if not virtual & IntCtl.V_IRQ:
        return False
    priority = virtual >> IntCtl.PRIORITY_SHIFT & 0xF
    return bool(virtual & IntCtl.V_IGN_TPR) or priority > (virtual & IntCtl.V_TPR) >> 4
