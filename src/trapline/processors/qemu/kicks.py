"""Kicks: an NMI that is injected by QMP makes the guest leave, and is absorbed before the guest goes on."""

from trapline.machine.processor import Outcome

from .aside import Aside
from .halts import Halts
from .handshake import Handshake
from .nmis import Nmis
from .qmp import Qmp


class Kicks:
    """Makes the guest leave when somebody asks for it, or when it has halted for good."""

    def __init__(self, handshake: Handshake, qmp: Qmp, aside: Aside, nmis: Nmis, *, watches: bool) -> None:
        """`watches`: QEMU can be asked whether the guest has halted for good, and kicked more than once."""
        self._handshake, self._qmp, self._aside, self._nmis = handshake, qmp, aside, nmis
        self._halts = Halts(qmp, self.kick)
        if watches:
            handshake.on_quiet = self._look
        self._pending = False
        self.begun = False
        """The guest has begun. Firmware may lose an NMI, and then the first one of the guest would be taken for it."""
        self.halted = False
        """Whether the guest waited in HLT when it was kicked."""

    def begin(self) -> None:
        """Take note that the guest begins, or begins again."""
        self.begun = True
        self._halts.forget()

    def kick(self) -> None:
        """Ask for a kick. Any thread may call this."""
        self._pending = True
        self._handshake.wake()

    def inject(self) -> None:
        """Kick the guest if that was asked for; called in the thread that waits."""
        if self._pending and self.begun:
            self.halted = self._halts.is_halted()
            self._nmis.foreign = True
            self._qmp.command("inject-nmi")

    def _look(self) -> None:
        """Once a second, while a guest is quiet: kick it again, or see whether it has halted for good.

        SeaBIOS loses an NMI that comes as it starts. One that is not lost is pending until it is absorbed: with it
        another is one.
        """
        if self._pending:
            self.inject()
        else:
            self._halts.look()

    def withdraw(self) -> bool:
        """Return whether a kick was asked for, which is not needed any more: the guest does not run."""
        pending, self._pending = self._pending, False
        return pending

    def absorb(self) -> Outcome | None:
        """Take the NMI of a kick, and return what the kick means.

        None: the guest goes on. It has to take an SMI first, after which the NMI comes again, or nobody wants it.
        """
        self._nmis.foreign = not self._aside.absorb_nmi()
        return self._halts.take() if not self._nmis.foreign and self.withdraw() else None
