"""One CPU's mailbox: whose it is, and how it is handed to the monitor and back."""

import time
from collections.abc import Callable
from typing import Final

from trapline.arch.layout import offset_of
from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome, Statistics

from .damage import Damage
from .layout import MAILBOX_AT, Command, Mailbox, Owner, SharedMemory
from .process import QemuEnded, QemuProcess
from .resets import Resets
from .rest import Rest
from .ring import Ring
from .watchdog import Watchdog

_HOST: Final = int(Owner.HOST)
_POLLS: Final = 1000
"""How often the owner is read before there is a sleep between two readings: some 50 us."""
NAP: Final = 20e-6
"""Seconds between two looks at what the monitor has yet to do: its thread in QEMU may need the core."""
_ANSWER: Final = 2.0
"""Seconds that the monitor has for a command, which takes it microseconds, when the run's deadline has passed."""


class Handover:
    """Hands `Mailbox.owner` to the monitor, and takes it back."""

    def __init__(
        self, qemu: QemuProcess, shared: SharedMemory, watchdog: Watchdog, damage: Damage, resets: Resets
    ) -> None:
        self._qemu = qemu
        self._mailbox = shared.mailbox
        owner = shared.at + MAILBOX_AT + offset_of(Mailbox, "owner")
        self._owner = shared.memory[owner : owner + 4].cast("I")
        self._damage = damage
        self._resets = resets
        self.ring = Ring(shared, damage)
        self.running = True  # until the firmware has reported the first time
        self.calling = False
        """It runs because of a `call`: in the monitor."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called again and again in a `call` that waits: for what may have stopped the whole machine meanwhile."""
        self._watchdog = watchdog
        self._deadline: float | None = None
        self._exits = 0
        self._stopped = 0
        self._stopped_at = time.perf_counter_ns()
        self.rest: Rest | None = None
        """What pauses QEMU where the host keeps the mailbox for long."""

    @property
    def kept_for(self) -> float:
        """Seconds since the monitor handed the mailbox back."""
        return (time.perf_counter_ns() - self._stopped_at) / 1e9

    @property
    def statistics(self) -> Statistics:
        """How often a #VMEXIT made the host the owner, and for how long it was."""
        return Statistics(self._exits, self._stopped / 1e9)

    def give(self, command: Command) -> None:
        """Hand the mailbox to the monitor."""
        self._mailbox.command = command
        self.running = True
        self._stopped += time.perf_counter_ns() - self._stopped_at
        self._owner[0] = Owner.MONITOR
        if self.rest is not None and self.rest.active:
            self.rest.end()

    def restart_clock(self) -> None:
        """Count the host as the owner from now on: before, there was nothing to execute."""
        self._stopped_at = time.perf_counter_ns()

    def attend(self, attended: int, deadline: float | None) -> None:
        """Note whether the host polls the owner, and until when the run is to end."""
        self._mailbox.attended, self._deadline = attended, deadline

    def call(self, command: Command) -> None:
        """Let the monitor execute a command and wait.

        Raises ProcessorLost when QEMU has ended or the monitor does not answer, MonitorDamaged where it is known why.
        """
        # Nobody listens for the doorbell meanwhile, and QEMU stands still at one for which its socket has no room.
        self._mailbox.attended = 1
        self.give(command)
        self.calling = True
        try:
            for _ in range(_POLLS):
                if self._owner[0]:
                    break
            else:
                self._wait_for_answer()
        finally:
            self.calling = False
        self._take_back()
        self._check_answer()

    def _wait_for_answer(self) -> None:
        """Wait for a monitor that takes longer: QEMU wants the core that polling would take from it."""
        since = time.monotonic()
        while not self._owner[0]:
            self.on_wait()
            if self._qemu.process.poll() is not None:
                raise QemuEnded
            self._check_reset()
            complaint = self._watchdog.complaint(since)
            if complaint is not None or self._is_late(since):
                self.check_monitor()
                raise ProcessorLost(complaint or "trapline's monitor did not answer before the time was up")
            time.sleep(NAP)

    @property
    def is_back(self) -> bool:
        """Whether the monitor has handed the mailbox back."""
        return self.running and bool(self._owner[0])

    def check_monitor(self) -> None:
        """Raise MonitorDamaged if the monitor cannot run any more, or crashed."""
        self._resets.came()
        what = self.ring.blocked() or self._damage.why_silent()
        if what is not None:
            self._damage.found(what)

    def _check_reset(self) -> None:
        """Raise an error if the machine was reset meanwhile, which with one CPU nothing does."""

    def _check_answer(self) -> None:
        """Raise an error if it is not the monitor that has answered, for the machine was reset."""
        if self._resets.came():
            raise ProcessorLost("the machine was reset while the guest was stopped")

    def _is_late(self, since: float) -> bool:
        """Return whether the monitor was to answer from `since` on, and the run's deadline has passed as well."""
        now = time.monotonic()
        return self._deadline is not None and now > self._deadline and now > since + _ANSWER

    def take(self) -> Outcome:
        """Take the mailbox, which the monitor has handed back at a #VMEXIT."""
        self._exits += 1
        self._take_back()
        return Outcome.VMEXIT

    def _take_back(self) -> None:
        self._stopped_at = time.perf_counter_ns()
        if self._owner[0] != _HOST:
            self._damage.found(f"its mailbox belongs to {self._owner[0]:#x}")
        self.running = False
        self.ring.drain()
