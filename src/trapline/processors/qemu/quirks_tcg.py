"""Quirks of SVM under QEMU's TCG, and the fixup of each (measured on QEMU 7.2).

The hypervisor above sees an SVM with nRIP, true EXITINTINFO and the exits of the manual; the TCG below gets
only what it executes correctly. One method per quirk; `before_entry` and `after_exit` call them in order.
"""

from collections.abc import Callable
from typing import Final

from trapline.arch.events import SHUTDOWN, Event, EventType, combine, decode, encode, is_software
from trapline.arch.exits import EXCEPTION_EXITS, ExitCode, exception_exit, set_intercept
from trapline.arch.vectors import FORCEABLE, SOFTWARE_EXCEPTIONS, VECTORS, WITH_ERROR_CODE, Vector
from trapline.asm.decoder import SVM_MNEMONICS, Mnemonic, decode_at_rip
from trapline.machine.linear import next_rip
from trapline.machine.memory import GuestMemory

from .facts import Facts
from .layout import BY_PYTHON, Mailbox, SharedMemory
from .nmis import Nmis
from .software_interrupts import COMBINING, INTERRUPTS, PATCHED, SoftwareInterrupts, vector_of
from .waits import WAITS, Waits

_RAISED_BY_TCG: Final = ~(1 << Vector.CP | 1 << Vector.DF)
"""TCG raises no #CP, and a #DF that it raises itself is never intercepted."""

_INVALID: Final = (0xFFFF_FFFF, int(ExitCode.INVALID))
"""The exit code, of 32 bits in older QEMUs (`Facts.wide_invalid`)."""
_FIRST_IRQ: Final = len(VECTORS)
_GP_EXIT: Final = exception_exit(Vector.GP)
_UD_EXIT: Final = exception_exit(Vector.UD)
_INSTRUCTION_EXITS: Final = frozenset((ExitCode.MSR, ExitCode.CPUID, ExitCode.ICEBP))
"""Exits after which the hypervisor skips the instruction and needs nRIP."""


class TcgQuirks:
    """The state that the fixups carry from an entry to the exit that follows."""

    def __init__(self, shared: SharedMemory, memory: GuestMemory, facts: Facts) -> None:
        self._vmcb = shared.vmcb
        self._facts = facts
        self._mailbox: Mailbox = shared.mailbox
        self._memory = memory
        self._wanted = 0
        self._wanted_misc1 = self._wanted_misc2 = 0
        self._soft = SoftwareInterrupts(shared)
        self._seen = 0
        self._armed = 0
        """What is intercepted besides until the injection that waits for its entry has left again."""
        self._waits = Waits(shared.vmcb)
        self.nmis = Nmis(shared.vmcb)
        self._fixups: dict[int, Callable[[], bool]] = {
            ExitCode.SWINT: self._fixup_int_n,
            ExitCode.NMI: self._fixup_nmi,
            ExitCode.IRET: self.nmis.returning,
            **dict.fromkeys(WAITS, self._fixup_wait),
        }

    @property
    def wants_interrupts(self) -> bool:
        """See `quirks.Quirks`."""
        return self._is_wanted(ExitCode.INTR) or self._waits.begun is not None

    def reset(self) -> None:
        """The machine was reset."""
        self._armed = 0
        self._waits.forget()

    def note_intercepts(self) -> None:
        """Read what the hypervisor wants from the VMCB; `write_intercepts` has to follow."""
        control = self._vmcb.control
        self._wanted, self._wanted_misc1 = control.intercept_exceptions, control.intercept_misc1
        self._wanted_misc2 = control.intercept_misc2
        self.nmis.note()

    def write_intercepts(self, *, stopping: bool, watching: bool) -> int:
        """Add what TCG needs to what the hypervisor wants; returns the exceptions that it does not want.

        `stopping`: exits are forced by INT3 (`stops`). `watching`: TCG is to deliver no event by itself (`deliveries`).
        """
        control = self._vmcb.control
        # SVM instructions can raise #GP, since the real EFER.SVME is set: see `_fixup_gp`.
        real = self._wanted | 1 << Vector.GP | (FORCEABLE if watching else 0)
        self._mailbox.intercepts = real
        control.intercept_exceptions = real | self._armed
        control.intercept_misc1, control.intercept_misc2 = self._wanted_misc1, self._wanted_misc2
        if stopping or self._wanted & SOFTWARE_EXCEPTIONS:
            set_intercept(control, ExitCode.SWINT)
        sees_int_n = stopping or watching or self._is_wanted(ExitCode.SWINT)
        self._mailbox.soft_arm = 0 if sees_int_n else COMBINING
        if watching:
            set_intercept(control, ExitCode.INTR)
        if self._wanted >> Vector.DB & 1 and not self._facts.hlt_asks:
            for code in WAITS:
                set_intercept(control, code)
        self.nmis.intercept()
        return 0xFFFF_FFFF & ~self._wanted

    def arm_for(self, vector: int) -> int:
        """Return what to intercept while an exception is delivered, besides the standing intercepts."""
        return COMBINING if COMBINING >> vector & 1 else 0

    def before_entry(self) -> None:
        """Turn what the hypervisor asks for into what TCG does right."""
        control = self._vmcb.control
        event = decode(control.event_inj)
        if event is None:
            control.event_inj = 0
            return
        if is_software(event):
            self._soft.inject(event)
            self._arm(COMBINING)
        elif event.type == EventType.EXCEPTION:
            self._arm(self.arm_for(event.vector))

    def entering(self) -> None:
        """Note what the VMRUN that follows injects, and which exceptions exit from it."""
        control = self._vmcb.control
        self._mailbox.injected = control.event_inj & 0xFFFF_FFFF | BY_PYTHON
        self._seen, self._armed = control.intercept_exceptions, 0
        self._soft.entering()

    def drop_exit(self) -> None:
        """Forget an exit that was forced: nothing happened that the hypervisor asked for."""
        if self._waits.begun:
            self._waits.end(kicked=True)
        self._vmcb.control.event_inj = self._vmcb.control.exit_int_info = 0

    def after_exit(self) -> bool:
        """Turn the exit into the one that the manual specifies; False: the hypervisor did not ask for it, resume."""
        control = self._vmcb.control
        injected, seen = self._last_entry()
        vectoring = self._fixup_vectoring(injected, seen)
        if self._waits.begun and not self._waits.end(kicked=self.nmis.foreign):
            return False
        code = control.exit_code
        if code in _INVALID:
            code = self._fixup_invalid()
        fixup = self._fixups.get(code)
        if fixup is not None:
            return fixup()
        if code in _INSTRUCTION_EXITS:
            control.nrip = next_rip(self._vmcb.save, decode_at_rip(self._vmcb.save, self._memory).length)
        if code not in EXCEPTION_EXITS:
            return True
        if vectoring is not None and COMBINING & _RAISED_BY_TCG & ~seen:
            return self._deliver_again(vectoring)
        if code == _GP_EXIT:
            code = self._fixup_gp(vectoring)
        vector = code - EXCEPTION_EXITS.start
        return bool(self._wanted >> vector & 1) or self._forward_unwanted(vector, vectoring)

    def is_still_wanted(self) -> bool:
        """Say whether the hypervisor wants an exit that was kept since its intercepts changed; False: resume."""
        control = self._vmcb.control
        if control.exit_code not in EXCEPTION_EXITS:
            return True
        vector = control.exit_code - EXCEPTION_EXITS.start
        if self._wanted >> vector & 1:
            return True
        if SOFTWARE_EXCEPTIONS >> vector & 1:
            self._soft.inject(Event(vector, EventType.SOFT))
            self._arm(COMBINING)
            return False
        return self._forward_unwanted(vector, decode(control.exit_int_info) if control.exit_int_info else None)

    def _is_wanted(self, intercept: int) -> bool:
        word = self._wanted_misc1 if intercept < ExitCode.VMRUN else self._wanted_misc2
        return bool(word >> intercept % 32 & 1)

    def _arm(self, exceptions: int) -> None:
        self._armed |= exceptions
        self._vmcb.control.intercept_exceptions |= exceptions

    def _last_entry(self) -> tuple[Event | None, int]:
        """Return what the last VMRUN injected, the monitor's own included, and which exceptions exited."""
        word = self._mailbox.injected
        injected = decode(word)
        if word & BY_PYTHON:
            return injected, self._seen
        if injected is None:
            return None, self._mailbox.intercepts
        if injected.type == EventType.SOFT:
            self._soft.note_monitors(injected)
            return injected, self._mailbox.intercepts | COMBINING
        return injected, self._mailbox.intercepts | self.arm_for(injected.vector)

    def _fixup_vectoring(self, injected: Event | None, seen: int) -> Event | None:
        """EXITINTINFO: the types of interrupts, and RIP back on an INT whose delivery failed."""
        control = self._vmcb.control
        event = decode(control.exit_int_info) if control.exit_int_info else None
        soft = self._soft.take_back(event)
        if event is None:
            return None
        if soft is not None:
            event = soft
        elif event.type == EventType.EXCEPTION and event.vector == Vector.NMI:
            event = Event(event.vector, EventType.NMI)
        elif event.type == EventType.EXCEPTION and self._is_interrupt(event.vector, injected, seen):
            event = Event(event.vector, EventType.INTR)
        control.exit_int_info = encode(event)
        return event

    @staticmethod
    def _is_interrupt(vector: int, injected: Event | None, seen: int) -> bool:
        """Whether TCG's "exception" is an interrupt: it writes type 3 for both.

        A PIC may use vectors below 32 too. An intercepted exception would have left before its delivery, and
        a #DF is never the first event, so what was not injected is an interrupt.
        """
        if vector >= _FIRST_IRQ:
            return True
        if injected is not None and injected.type == EventType.EXCEPTION and injected.vector == vector:
            return False
        return vector == Vector.DF or bool(seen >> vector & 1)

    def _fixup_invalid(self) -> int:
        """MOV to a control register with reserved bits leaves with the code of INVALID instead of #GP(0)."""
        control = self._vmcb.control
        control.exit_code = ExitCode.INVALID
        if decode_at_rip(self._vmcb.save, self._memory).writes_control:
            control.exit_code, control.exit_info_1 = _GP_EXIT, 0
        return control.exit_code

    def _fixup_int_n(self) -> bool:
        """INT3 and INTO take INT n's exit: tell them apart by the opcode, and supply nRIP and the vector."""
        control = self._vmcb.control
        found = decode_at_rip(self._vmcb.save, self._memory)
        if found.mnemonic == Mnemonic.INVALID:  # a LOCK prefix, which TCG does not mind
            control.exit_code, control.exit_info_1 = _UD_EXIT, 0
            return bool(self._wanted >> Vector.UD & 1) or self._forward_unwanted(Vector.UD, None)
        if found.mnemonic not in INTERRUPTS:
            found = PATCHED
        vector = vector_of(found)
        control.nrip = next_rip(self._vmcb.save, found.length)
        if found.mnemonic != Mnemonic.INT and self._wanted >> vector & 1:
            control.exit_code = exception_exit(vector)
            return True
        if found.mnemonic == Mnemonic.INT and self._is_wanted(ExitCode.SWINT):
            control.exit_info_1 = vector
            return True
        self._soft.inject(Event(vector, EventType.SOFT))
        self._arm(COMBINING)
        return False

    def _fixup_nmi(self) -> bool:
        self._vmcb.control.event_inj = 0
        return self.nmis.taken()

    def _fixup_wait(self) -> bool:
        """HLT or MWAIT, intercepted for the sake of its #DB."""
        if self._is_wanted(self._vmcb.control.exit_code):
            return True
        self._waits.begin()
        return False

    def _deliver_again(self, event: Event) -> bool:
        """Repeat a failed delivery, of which nothing is done yet, with all combining exceptions intercepted.

        While some were not, EXITINTINFO may be stale: TCG writes it for the first event only, and what that
        event's delivery raised, unintercepted, is what was really being delivered.
        """
        if event.type == EventType.SOFT:
            self._vmcb.control.event_inj = 0  # RIP is on the INT, which executes again
        else:
            self._vmcb.control.event_inj = encode(event)
        self._arm(COMBINING)
        return False

    def _fixup_gp(self, vectoring: Event | None) -> int:
        """A guest without SVM gets #UD for its instructions, even where TCG finds a reason for #GP."""
        control = self._vmcb.control
        candidate = vectoring is None and not control.exit_info_1
        if candidate and decode_at_rip(self._vmcb.save, self._memory).mnemonic in SVM_MNEMONICS:
            control.exit_code = _UD_EXIT
        return control.exit_code

    def _forward_unwanted(self, vector: int, vectoring: Event | None) -> bool:
        """Do what the CPU does with an exception that the hypervisor does not intercept."""
        control = self._vmcb.control
        if vector == Vector.PF:
            self._vmcb.save.cr2 = control.exit_info_2
        code = control.exit_info_1 & 0xFFFF_FFFF if WITH_ERROR_CODE >> vector & 1 else None
        result = combine(vectoring, Event(vector, EventType.EXCEPTION, code))
        if result is SHUTDOWN:
            control.exit_code = ExitCode.SHUTDOWN
            return True
        if result.vector == Vector.DF and self._wanted >> Vector.DF & 1:
            control.exit_code, control.exit_info_1 = exception_exit(Vector.DF), 0
            return True
        control.event_inj = encode(result)
        self._arm(self.arm_for(result.vector))
        return False
