"""Quirks of SVM under KVM, and the fixup of each: nRIP where the CPU saves none, and RF.

The CPU's own SVM is the manual's. A CPU without nRIP (APM vol. 2, 15.7.1) is an old one, or emulated by QEMU.
"""

from collections.abc import Callable
from typing import Final

from trapline.arch.bits import M32
from trapline.arch.events import decode, encode, is_software
from trapline.arch.exits import ExitCode, exception_exit
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import Vector
from trapline.asm.decoder import decode_at_rip
from trapline.machine.linear import next_rip
from trapline.machine.memory import GuestMemory

from .facts import Facts
from .layout import BY_PYTHON, Mailbox, SharedMemory
from .nmis import Nmis
from .software_interrupts import SoftwareInterrupts, vector_of

_SKIPPED: Final = frozenset(
    (
        *(ExitCode.MSR, ExitCode.CPUID, ExitCode.ICEBP, ExitCode.SWINT),
        *(exception_exit(Vector.BP), exception_exit(Vector.OF)),
    )
)
"""Exits after which the hypervisor needs nRIP."""
_DECODED: Final = frozenset((ExitCode.SWINT,))


class KvmQuirks:
    """Implements `quirks.Quirks`."""

    def __init__(self, shared: SharedMemory, memory: GuestMemory, facts: Facts) -> None:
        self._vmcb = shared.vmcb
        self._mailbox: Mailbox = shared.mailbox
        self._memory = memory
        self._soft = None if facts.saves_nrip else SoftwareInterrupts(shared)
        self.nmis = Nmis(shared.vmcb)
        self._fixups: dict[int, Callable[[], bool]] = {
            ExitCode.NMI: self.nmis.taken,
            ExitCode.IRET: self.nmis.returning,
        }

    @property
    def wants_interrupts(self) -> bool:
        """Nothing here depends on it."""
        return False

    def reset(self) -> None:
        """Nothing of the guest is kept."""

    def note_intercepts(self) -> None:
        """See `quirks.Quirks`."""
        self.nmis.note()

    def write_intercepts(self, *, stopping: bool, watching: bool) -> int:
        """See `quirks.Quirks`; breakpoints and watchpoints are refused under KVM."""
        assert not stopping
        assert not watching
        self._mailbox.intercepts = self._vmcb.control.intercept_exceptions
        self.nmis.intercept()
        return 0

    def arm_for(self, vector: int) -> int:
        """Nothing: EXITINTINFO tells what an exception was raised in the delivery of."""
        return 0

    def before_entry(self) -> None:
        """Where nRIP is not known to the CPU either, INT3, INTO and INT n push the RIP of the VMCB."""
        event = decode(self._vmcb.control.event_inj)
        if event is not None and self._soft is not None and is_software(event):
            self._soft.inject(event)

    def entering(self) -> None:
        """Note what the VMRUN that follows injects."""
        self._mailbox.injected = self._vmcb.control.event_inj & M32 | BY_PYTHON
        if self._soft is not None:
            self._soft.entering()

    def drop_exit(self) -> None:
        """Forget an exit that was forced."""
        self._vmcb.control.event_inj = self._vmcb.control.exit_int_info = 0

    def is_still_wanted(self) -> bool:
        """See `quirks.Quirks`: with one CPU no exit is kept."""
        return True

    def after_exit(self) -> bool:
        """See `quirks.Quirks`."""
        control = self._vmcb.control
        vectoring = decode(control.exit_int_info) if control.exit_int_info else None
        interrupted = None if self._soft is None else self._soft.take_back(vectoring)
        if interrupted is not None:
            control.exit_int_info = encode(interrupted)
        fixup = self._fixups.get(control.exit_code)
        if fixup is not None:
            # Nobody above gives what was being delivered to the guest again. An INT n is executed again.
            control.event_inj = 0 if vectoring is None or interrupted is not None else control.exit_int_info
            return fixup()
        if vectoring is not None:
            self._take_rf_back()
        if control.exit_code in (_SKIPPED if self._soft is not None else _DECODED):
            self._decode()
        return True

    def _take_rf_back(self) -> None:
        """The monitor set RF for a fault that was not delivered: RF is what it was (`delivery` does so for its own)."""
        injected = self._mailbox.injected
        if not injected & BY_PYTHON and injected == self._vmcb.control.exit_int_info & M32:
            save = self._vmcb.save
            save.rflags = save.rflags & ~RFLAGS.RF | self._mailbox.seen_rflags & RFLAGS.RF

    def _decode(self) -> None:
        """Supply nRIP, and the vector of INT n, which not every CPU tells either."""
        control = self._vmcb.control
        found = decode_at_rip(self._vmcb.save, self._memory)
        control.nrip = next_rip(self._vmcb.save, found.length)
        if control.exit_code == ExitCode.SWINT:
            control.exit_info_1 = vector_of(found)
