"""NMIs, which are intercepted for the sake of kicks: the guest takes its own, the monitor those of a kick."""

from trapline.arch.exits import ExitCode, clear_intercept, is_intercepted, set_intercept
from trapline.arch.vmcb import Vmcb


class Nmis:
    """Tells whose an NMI is."""

    def __init__(self, vmcb: Vmcb) -> None:
        self._vmcb = vmcb
        self.foreign = False
        """An NMI of a kick is on its way: it is not the guest's."""
        self._wanted = False

    def note(self) -> None:
        """Read from the VMCB whether the hypervisor intercepts NMIs itself."""
        self._wanted = is_intercepted(self._vmcb.control, ExitCode.NMI)

    def intercept(self) -> None:
        """Intercept NMIs, as every change of the intercepts has to end."""
        set_intercept(self._vmcb.control, ExitCode.NMI)

    def taken(self) -> bool:
        """An NMI has made the guest leave; False: it is the guest's own, which takes it when it resumes.

        Until its handler's IRET the CPU blocks further NMIs, so the intercept is not needed for that long.
        """
        if self.foreign or self._wanted:
            return True
        clear_intercept(self._vmcb.control, ExitCode.NMI)
        set_intercept(self._vmcb.control, ExitCode.IRET)
        return False

    def returning(self) -> bool:
        """The handler's IRET is about to execute, which nobody else asked for."""
        clear_intercept(self._vmcb.control, ExitCode.IRET)
        self.intercept()
        return False
