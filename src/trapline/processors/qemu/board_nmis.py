"""The NMIs of one CPU of several: ours, which stop it, and the guest's, which QEMU does not tell from them."""

from collections.abc import Callable

from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.vmcb import Vmcb

from .aside import Aside
from .nmis import Nmis


class BoardNmis:
    """Takes note of those that are sent, and absorbs ours."""

    def __init__(self, vmcb: Vmcb, nmis: Nmis, aside: Aside, send: Callable[[], object]) -> None:
        """`send` sends the guest's own again."""
        self._vmcb, self._nmis, self._aside, self._send = vmcb, nmis, aside, send
        self._by_qmp = False
        """QEMU was asked for an NMI to all CPUs, which this one may mask."""
        self._own = False
        """The guest has sent it an NMI, which it has not taken."""

    @property
    def foreign(self) -> bool:
        """One of ours is on its way."""
        return self._nmis.foreign

    def reset(self) -> None:
        """The machine was reset: none is pending."""
        self._nmis.foreign = self._by_qmp = self._own = False

    def expect(self, *, by_qmp: bool = False) -> None:
        """Note that one of ours is sent; `by_qmp`: or may be.

        It is pending until it makes the CPU leave, at once or after the handler of an NMI of the guest's.
        """
        self._by_qmp = by_qmp and (self._by_qmp or not self._nmis.foreign)
        self._nmis.foreign = True

    def note(self) -> None:
        """The guest sends it one, which QEMU does not tell from one of ours that is pending as well."""
        self._own = True

    def forget_own(self) -> None:
        """The guest has taken its own, or an INIT is sent, before which it counts for nothing."""
        self._own = False

    def settle(self) -> None:
        """Forget one of ours that may not have come, unless it waits for the guest's IRET from another."""
        control = self._vmcb.control
        if self._by_qmp and control.exit_code != ExitCode.IRET and not is_intercepted(control, ExitCode.IRET):
            self.absorb()

    def absorb(self) -> None:
        """Take the one that is pending; the guest's own is sent again."""
        if self._aside.absorb_nmi():  # else an SMI came first, and the NMI comes again
            self._nmis.foreign = self._by_qmp = False
            if self._own:
                self._send()
