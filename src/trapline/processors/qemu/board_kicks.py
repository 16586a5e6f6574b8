"""Kicks with several CPUs: an NMI that is injected by QMP stops one that executes the guest, if none stands still."""

from collections.abc import Sequence

from trapline.machine.processor import Outcome

from .board_cpu import BoardCpu
from .halts import Halts
from .handshakes import Handshakes
from .qmp import Qmp


class BoardKicks:
    """Stops a CPU when somebody asks for it, or when all have halted for good."""

    def __init__(self, handshakes: Handshakes, qmp: Qmp, cpus: Sequence[BoardCpu]) -> None:
        self._handshakes, self._qmp, self._cpus = handshakes, qmp, cpus
        self._halts = Halts(qmp, self.kick, several=True)
        handshakes.on_quiet = self._look
        self._asked = False
        self.begun = False
        """The guest has begun: before, there is nothing to stop."""

    @property
    def pending(self) -> bool:
        """Whether one was asked for, and the guest has begun."""
        return self._asked and self.begun

    def begin(self) -> None:
        """Take note that the guest begins, or begins again."""
        self.begun = True
        self._halts.forget()

    def kick(self) -> None:
        """Ask for a kick. Any thread may call this."""
        self._asked = True
        self._handshakes.wake()

    def take(self, executing: Sequence[BoardCpu]) -> Outcome | None:
        """Return what a kick means, if there was one: as soon as one CPU has stopped, or what is executed alone has.

        That may come back otherwise, as a step does that is complete.
        """
        if not self.pending:
            return None
        if len(executing) < len(self._cpus):
            stands = not any(cpu.running for cpu in executing)
        else:
            stands = any(not cpu.running and not cpu.asleep for cpu in self._cpus)
        self._asked = not stands
        return self._halts.take() if stands else None

    def inject(self) -> None:
        """Stop a CPU if that was asked for; called in the thread that waits."""
        if self.pending:
            self.note_halts()
            self.inject_nmi()

    def inject_nmi(self) -> None:
        """Let QEMU send an NMI to all CPUs, each of which may mask it."""
        for cpu in self._cpus:
            if not cpu.asleep:
                cpu.nmis.expect(by_qmp=True)
        self._qmp.command("inject-nmi")

    def note_halts(self) -> None:
        """Note which of the CPUs that execute the guest wait in HLT, which an NMI ends."""
        for number, waits in self._halts.halted().items():
            self._cpus[number].halted = waits and self._cpus[number].running

    def _look(self) -> None:
        """Once a second, while the guest is quiet: kick it again, or see whether it has halted for good."""
        if self._asked:
            self.inject()
        else:
            self._halts.look()
