"""What interrupts and starts one CPU: its local APIC, at the boot CPU the 8259s, and INIT with its startup IPI."""

from collections.abc import Callable
from typing import Final

from . import lapic
from .interrupt_command import INIT, Command, Message
from .pic import PicPair

_BOOT_CPU: Final = 1 << 8
"""Of MSR 0x1B."""


class LocalInterrupts:
    """The pins of one CPU, and its local APIC. Interrupts of the 8259s are for the boot CPU alone."""

    def __init__(
        self,
        number: int,
        clock: Callable[[], int],
        pics: PicPair | None,
        *,
        eoi: Callable[[int], None],
        send: Callable[[int, Command], None],
        reset: Callable[[], None],
        tell: Callable[[str, str], None],
    ) -> None:
        """`pics` are at the boot CPU, which has number 0; `reset` is its INIT.

        `eoi` tells the I/O APIC that a level triggered vector ended; `send` carries out an interrupt command of this
        CPU, given its number; `tell` keeps a sentence for the user.
        """
        self.number = number
        self.apic_base = lapic.BASE | lapic.ENABLE | (0 if number else _BOOT_CPU)
        """What MSR 0x1B reads; the local APIC cannot be moved."""
        self._pics, self._reset, self._tell = pics, reset, tell
        self.lapic = lapic.Lapic(number, clock, eoi=eoi, send=lambda command: send(number, command), signal=self._start)
        self.reset()

    def reset(self) -> None:
        """Be as firmware leaves it: the boot CPU executes, others are parked, and do nothing before an INIT."""
        self.lapic.reset(enabled=not self.number)
        self.arrived = 0
        """See `ChipState.arrived`: the processor notes it."""
        self._parked = True
        """As firmware leaves it."""
        self._init = self._waits = False
        """An INIT waits for the CPU; a startup IPI counts."""
        self._startup: int | None = None

    def pending(self) -> int | None:
        """Return the vector that the CPU would take now if RFLAGS.IF is set; ExtINT comes first."""
        pics = self._extint
        return self.lapic.pending() if pics is None else pics.vector()

    def acknowledge(self) -> int:
        """Answer the CPU's INTA: the pending vector, from now on in service. Without one, the spurious vector."""
        pics = self._extint
        return self.lapic.acknowledge() if pics is None else pics.acknowledge()

    def nmi_pending(self) -> bool:
        """Return whether an NMI waits for the CPU."""
        return self.lapic.nmi

    def take_nmi(self) -> None:
        """The CPU takes the NMI."""
        self.lapic.nmi = False

    def take_init(self) -> bool:
        """Return whether an INIT came, which the CPU takes; it is not the boot CPU."""
        came, self._init = self._init, False
        return came

    def take_startup(self) -> int | None:
        """Return the vector of the startup IPI that came after an INIT, which the CPU takes; None: none came."""
        vector, self._startup = self._startup, None
        return vector

    @property
    def tpr(self) -> int:
        """The task priority register; CR8 is its bits 7-4."""
        return self.lapic.tpr

    @tpr.setter
    def tpr(self, value: int) -> None:
        self.lapic.tpr = value & 0xFF

    @property
    def _extint(self) -> PicPair | None:
        return self._pics if self._pics is not None and self.lapic.lint0 and self.lapic.takes_extint else None

    def _start(self, message: Message) -> None:
        """Take an INIT or a startup IPI."""
        if not self.number:
            if message.mode == INIT:
                self._reset()
        elif message.mode == INIT:
            self.lapic.reset(enabled=False)
            self._parked, self._init, self._waits = False, True, True
            self._startup = None
        elif self._waits:
            self._startup, self._waits = message.vector, False
        elif self._parked:
            self._tell(
                f"startup of {self.number}",
                f"the guest sent a startup IPI to CPU {self.number} without an INIT before: firmware has parked the "
                "CPU, and it starts only after an INIT",
            )
