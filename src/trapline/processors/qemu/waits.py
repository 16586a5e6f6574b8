"""HLT and MWAIT, whose #DB under TF newer TCGs deliver without asking its intercept (`Facts.hlt_asks`).

Where that #DB is wanted both are intercepted, and then executed without TF and with interrupts intercepted. When one
comes the wait is over: the #DB is due, before the interrupt (APM vol. 2, 8.5).
"""

from typing import Final, NamedTuple

from trapline.arch.exits import ExitCode, clear_intercept, exception_exit, set_intercept
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb

WAITS: Final = (int(ExitCode.HLT), int(ExitCode.MWAIT))
_DB_EXIT: Final = exception_exit(Vector.DB)


class Begun(NamedTuple):
    """What was changed for an instruction that waits."""

    rip: int
    trap: int
    """RFLAGS.TF, or 0."""
    intercepts: tuple[int, int]


class Waits:
    """Executes an intercepted HLT or MWAIT."""

    def __init__(self, vmcb: Vmcb) -> None:
        self._vmcb = vmcb
        self.begun: Begun | None = None
        """The guest waits."""

    def forget(self) -> None:
        """The machine was reset."""
        self.begun = None

    def begin(self) -> None:
        """Let the guest execute the instruction at RIP, which has left."""
        save, control = self._vmcb.save, self._vmcb.control
        self.begun = Begun(save.rip, save.rflags & RFLAGS.TF, (control.intercept_misc1, control.intercept_misc2))
        save.rflags &= ~RFLAGS.TF
        for code in WAITS:
            clear_intercept(control, code)
        set_intercept(control, ExitCode.INTR)

    def end(self, *, kicked: bool) -> bool:
        """Put back what was changed, and turn the exit for an event into that of the #DB, if one is due.

        `kicked`: the guest was woken by no event of its own, and is to execute the instruction again. Returns whether
        there is an exit: an interrupt that only this intercepts is not one.
        """
        assert self.begun is not None, "the guest waits"
        save, control = self._vmcb.save, self._vmcb.control
        begun, self.begun = self.begun, None
        control.intercept_misc1, control.intercept_misc2 = begun.intercepts
        save.rflags |= begun.trap
        event = control.exit_code in (ExitCode.INTR, ExitCode.NMI)
        if event and save.rip != begun.rip:
            if kicked:
                # An interrupt must not come before it: it would be what the instruction waits for.
                save.rip, control.interrupt_shadow = begun.rip, 1
            elif begun.trap:
                save.dr6 |= DR6.BS
                control.exit_code, control.exit_info_1 = _DB_EXIT, 0
        return control.exit_code != ExitCode.INTR
