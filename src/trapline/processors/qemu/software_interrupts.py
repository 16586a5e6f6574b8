"""INT3, INTO and INT n on a CPU without nRIP, such as TCG's, which also has one intercept for them all.

The monitor injects an INT n by itself where it can (`monitor.guest_code`); what it leaves to Python is decided here.
"""

from typing import Final

from trapline.arch.events import Event, EventType, encode
from trapline.arch.vectors import CONTRIBUTORY, Vector
from trapline.asm.decoder import Decoded, Mnemonic

from .layout import SharedMemory

COMBINING: Final = CONTRIBUTORY | 1 << Vector.PF | 1 << Vector.DF
"""Exceptions that become something else when one is raised during the delivery of another.

TCG forgets an injected event, so their combination must be seen: after an injection of one of them all are
intercepted ("armed") until the next exit.
"""

INTERRUPTS: Final = (Mnemonic.INT, Mnemonic.INT3, Mnemonic.INTO)
"""What exits as INT n."""
PATCHED: Final = Decoded(Mnemonic.INT3, 1, 0, writes_control=False, register=-1)
"""What exited where another CPU has replaced it since: kernels change their code under an INT3."""


class SoftwareInterrupts:
    """Injects them, and restores RIP where the delivery fails."""

    def __init__(self, shared: SharedMemory) -> None:
        self._vmcb, self._mailbox = shared.vmcb, shared.mailbox
        self._injected: tuple[int, Event] | None = None
        """RIP of the instruction, and what was injected for it."""

    def inject(self, event: Event) -> None:
        """Inject one at its instruction; nRIP is set. The CPU pushes RIP; TCG checks the gate's DPL for type 4 only.

        A fault in the delivery has to be intercepted, to restore RIP.
        """
        control, save = self._vmcb.control, self._vmcb.save
        self._injected = (save.rip, event)
        save.rip = control.nrip
        control.event_inj = encode(Event(event.vector, EventType.SOFT))

    def entering(self) -> None:
        """Forget one that the VMRUN that follows does not inject."""
        if self._injected is not None and self._vmcb.control.event_inj >> 8 & 7 != EventType.SOFT:
            self._injected = None

    def note_monitors(self, event: Event) -> None:
        """Take note of an INT n that the monitor injected."""
        self._injected = (self._mailbox.soft_rip, event)

    def take_back(self, event: Event | None) -> Event | None:
        """Put RIP back on the instruction if its delivery failed: `event` is what was being delivered at the exit.

        Returns what was injected for it; None: `event` is something else.
        """
        injected, self._injected = self._injected, None
        if injected is None or event is None or event.type != EventType.SOFT or event.vector != injected[1].vector:
            return None
        self._injected = injected
        control, save = self._vmcb.control, self._vmcb.save
        control.nrip, save.rip = save.rip, injected[0]
        return injected[1]


def vector_of(found: Decoded) -> int:
    """Return the vector of INT3, INTO or INT n."""
    if found.mnemonic == Mnemonic.INT3:
        return Vector.BP
    if found.mnemonic == Mnemonic.INTO:
        return Vector.OF
    return found.immediate
