"""Events whose delivery would access watched memory, delivered here: TCG would lose them.

TCG checks watchpoints in the accesses of a delivery as well and abandons the delivery at a hit; an interrupt or an
injected event is then lost (QEMU 7.2, cpu_check_watchpoint). So while watchpoints are set every event is intercepted,
interrupts included, and those that would hit are delivered with the model of `arch.delivery`.
"""

import contextlib
from collections.abc import Iterable
from typing import Final

from trapline.arch.delivery import Delivered, apply, deliver
from trapline.arch.events import Event, EventType, decode, encode
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, clear_intercept, set_intercept
from trapline.arch.memory import ReaderMemory, open_bus
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.errors import FaultError
from trapline.machine.memory import GuestMemory
from trapline.machine.processor import Watchpoint

from .facts import Facts
from .layout import SharedMemory

_GP_EXIT: Final = EXCEPTION_EXITS.start + Vector.GP


class Deliveries:
    """Delivers what TCG cannot, and fetches the vectors of interrupts for it."""

    def __init__(self, shared: SharedMemory, memory: GuestMemory, facts: Facts) -> None:
        self._vmcb = shared.vmcb
        self._memory = memory
        self._facts = facts
        self._idt_limit: int | None = None
        """The guest's, while the vector of an interrupt is being fetched."""

    @property
    def fetching(self) -> bool:
        """Whether the guest was entered for the vector of an interrupt, and has not left since."""
        return self._idt_limit is not None

    def reset(self) -> None:
        """Forget an interrupt: the machine was reset."""
        self._idt_limit = None

    def cancel(self) -> None:
        """Leave an interrupt pending whose vector was to be fetched: the guest has left for another reason."""
        if self._idt_limit is not None:
            self._vmcb.save.idtr.limit, self._idt_limit = self._idt_limit, None
            set_intercept(self._vmcb.control, ExitCode.INTR)

    def before_entry(self, watched: tuple[Watchpoint, ...]) -> None:
        """Deliver the event in EVENTINJ if its delivery would access watched memory; one that fails is left to TCG."""
        control, save = self._vmcb.control, self._vmcb.save
        event = decode(control.event_inj)
        if event is None:
            return
        result = deliver(
            save,
            event,
            ReaderMemory(open_bus(self._memory.read)),
            sets_rf=self._facts.faults_set_rf,
            interrupts_keep_rf=self._facts.interrupts_keep_rf,
        )
        if not isinstance(result, Delivered) or not touches(watched, save, result):
            return
        for gpa, data in result.writes:
            with contextlib.suppress(FaultError):  # a write to where there is no memory has no effect
                self._memory.write(gpa, data)
        apply(save, result)
        control.event_inj = control.interrupt_shadow = 0

    def fetch_vector(self) -> bool:
        """Turn an exit for an interrupt into the injection of that interrupt; True: the guest is to be entered again.

        The vector is only told to a CPU that takes the interrupt. The guest is made to, with an IDT of no length: the
        #GP that follows, before anything is changed, leaves with the interrupt in EXITINTINFO.
        """
        control, idtr = self._vmcb.control, self._vmcb.save.idtr
        if self._idt_limit is None:
            if control.exit_code != ExitCode.INTR:
                return False
            self._idt_limit, idtr.limit, control.event_inj = idtr.limit, 0, 0
            clear_intercept(control, ExitCode.INTR)
            return True
        idtr.limit, self._idt_limit = self._idt_limit, None
        set_intercept(control, ExitCode.INTR)
        event = decode(control.exit_int_info)
        if control.exit_code != _GP_EXIT or event is None:
            return False  # the interrupt was withdrawn, or an NMI came first
        control.event_inj = encode(Event(event.vector, EventType.INTR))
        return True


def touches(watched: Iterable[Watchpoint], save: SaveArea, delivered: Delivered) -> bool:
    """Return whether a delivery may have accessed watched memory: its frame, or a table that it reads."""
    frame = delivered.frame
    places = [(frame.gva, frame.width * len(frame.values))]
    places += [(table.base, table.limit + 1) for table in (save.idtr, save.gdtr, save.tr)]
    return any(
        start < one.address + one.size and one.address < start + size for start, size in places for one in watched
    )
