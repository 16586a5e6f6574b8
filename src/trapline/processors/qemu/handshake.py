"""The host's half of the handshake with the monitor: hand over a command, wait until the monitor is done with it."""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Final

from trapline.arch.layout import offset_of
from trapline.errors import LaunchError, ProcessorLost
from trapline.machine.processor import Outcome, Statistics

from .damage import Damage
from .layout import MAILBOX_AT, Command, Mailbox, Owner, SharedMemory
from .process import QemuProcess
from .resets import Resets
from .ring import Ring
from .watchdog import Watchdog

_SPIN: Final = 2000
"""Reads of the mailbox before sleeping: some 100 us, often longer than the time to the guest's next exit."""
_HOST: Final = int(Owner.HOST)
_ANSWER: Final = 2.0
"""Seconds that the monitor has for a command, which takes it microseconds, when the run's deadline has passed."""
_SELDOM: Final = 0xFF
"""The deadline is checked at exits whose number has none of these bits."""
_BUSY_POLL: Final = 0.02
_QUIET: Final = 1.0
"""Seconds between two calls of `on_quiet`."""
_IDLE_POLL: Final = 0.1
"""Longest sleep between two reads of the ring, in seconds; the monitor rings when it is half full."""


class Handshake:
    """Hands `Mailbox.owner` to the monitor and waits, by the doorbell, until it is back."""

    def __init__(
        self,
        qemu: QemuProcess,
        shared: SharedMemory,
        on_wake: Callable[[], None],
        watchdog: Watchdog,
        damage: Damage,
        resets: Resets,
    ) -> None:
        """`on_wake` is called in the thread that waits, once after each `wake`."""
        self._qemu = qemu
        self._mailbox = shared.mailbox
        owner = MAILBOX_AT + offset_of(Mailbox, "owner")
        self._owner = shared.memory[owner : owner + 4].cast("I")
        self._damage = damage
        self._resets = resets
        self.ring = Ring(shared, damage)
        self.running = True  # until the firmware has reported the first time
        self.reported = False
        """The firmware has reported once: from now on an exit may follow within microseconds."""
        self._watchdog = watchdog
        self._expected: float | None = time.monotonic()
        """Since when the firmware or the monitor is to report a reset; None: the guest runs."""
        self._deadline: float | None = None
        self.on_quiet: Callable[[], None] = lambda: None
        """Called in the thread that waits for a guest that runs, once a second."""
        self._look_at = 0.0
        self._exits = 0
        self._stopped = 0
        self._stopped_at = time.perf_counter_ns()
        self._on_wake = on_wake
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._doorbell = qemu.doorbell.fileno()
        for descriptor in (self._doorbell, self._wake_read):
            self._poll.register(descriptor, select.POLLIN)

    @property
    def statistics(self) -> Statistics:
        """How often and for how long the host was the owner."""
        return Statistics(self._exits, self._stopped / 1e9)

    def give(self, command: Command) -> None:
        """Hand the mailbox to the monitor."""
        self._mailbox.command = command
        self.running = True
        self._stopped += time.perf_counter_ns() - self._stopped_at
        self._owner[0] = Owner.MONITOR

    def expect_report(self) -> None:
        """Hand the mailbox to the firmware, which starts the monitor."""
        self.give(Command.RESUME)
        if self._expected is None:  # else it was started before, in vain
            self._expected = time.monotonic()

    def report_came(self) -> None:
        """Note that the monitor has reported a reset."""
        self.reported, self._expected = True, None

    def call(self, command: Command) -> None:
        """Let the monitor execute a command and wait.

        Raises ProcessorLost when QEMU has ended or the monitor does not answer, MonitorDamaged where it is known why.
        """
        self.give(command)
        since = time.monotonic()
        while not self._owner[0]:
            if self._qemu.process.poll() is not None:
                raise ProcessorLost("QEMU ended while the guest was stopped")
            complaint = self._watchdog.complaint(since)
            if complaint is not None or self._is_late(since):
                self.check_monitor()
                raise ProcessorLost(complaint or "trapline's monitor did not answer before the time was up")
        self._take()
        if self._resets.came():
            raise ProcessorLost("the machine was reset while the guest was stopped")

    def check_monitor(self) -> None:
        """Raise MonitorDamaged if the monitor cannot run any more, or crashed."""
        self._resets.came()
        what = self.ring.blocked() or self._damage.why_silent()
        if what is not None:
            self._damage.found(what)

    def _is_overdue(self) -> bool:
        """Return whether the deadline has passed, seldom: exits that come during the spin would outlast it."""
        return self._deadline is not None and not self._exits & _SELDOM and time.monotonic() > self._deadline

    def _is_late(self, since: float) -> bool:
        """Return whether the monitor was to answer from `since` on, and the run's deadline has passed as well."""
        now = time.monotonic()
        return self._deadline is not None and now > self._deadline and now > since + _ANSWER

    def watch(self, descriptor: int) -> None:
        """Let `wait` return when there is something to read in a file."""
        self._poll.register(descriptor, select.POLLIN)

    def wait(self, deadline: float | None) -> Outcome | None:
        """Wait until the monitor hands the mailbox back, draining the ring meanwhile. OFF: QEMU has ended.

        None: a file of `watch` has something to read. Raises LaunchError for a machine that does not start,
        MonitorDamaged for a monitor that crashed or hangs, as far as that is known.
        """
        owner, mailbox = self._owner, self._mailbox
        mailbox.attended = 1
        self._deadline = deadline
        for _ in range(_SPIN if self.reported and not self._is_overdue() else 0):
            if owner[0]:
                return self._take()
        poll = _BUSY_POLL
        while True:
            mailbox.attended = 0
            if not owner[0]:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self.ring.drain()
                    self.check_monitor()
                    return Outcome.DEADLINE
                if self._sleep(poll if left is None else min(poll, left)):
                    return None
            poll = _BUSY_POLL if self.ring.drain() else _IDLE_POLL
            if owner[0]:
                return self._take()
            if self._qemu.process.poll() is not None:
                self.ring.drain()
                return Outcome.OFF
            self._watch()

    def _watch(self) -> None:
        """Watch over a reset of the machine, which the firmware or the monitor is to report."""
        since = self._expected
        if since is None:
            self._expected = time.monotonic() if self._resets.came() else None
            if self._expected is None and (now := time.monotonic()) >= self._look_at:
                self._look_at = now + _QUIET
                self.on_quiet()
            return
        complaint = self._watchdog.complaint(since)
        if complaint is not None and self.reported:
            raise ProcessorLost(f"after a reset of the machine {complaint}")
        if complaint is not None:
            error = self._qemu.launch_error()
            raise LaunchError(complaint, command=error.command, returncode=error.returncode, output=error.output)

    def wake(self) -> None:
        """Interrupt the wait. Any thread may call this."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"k")

    def close(self) -> None:
        """Close the wake pipe. Safe to call twice."""
        if self._wake_read >= 0:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1

    def _take(self) -> Outcome:
        self._stopped_at = time.perf_counter_ns()
        if self._owner[0] != _HOST:
            self._damage.found(f"its mailbox belongs to {self._owner[0]:#x}")
        self.running = False
        self._exits += 1
        self.ring.drain()
        return Outcome.VMEXIT

    def _sleep(self, seconds: float) -> bool:
        """Sleep until something happens; True: a file of `watch` has something to read."""
        watched = False
        for descriptor, event in self._poll.poll(seconds * 1000):
            if descriptor == self._wake_read:
                os.read(descriptor, 64)
                self._on_wake()
            elif descriptor != self._doorbell:
                watched = event == select.POLLIN
            elif not self._drain_doorbell():
                self._qemu.wait()
        return watched

    def _drain_doorbell(self) -> bool:
        """Discard the bytes that the doorbell sent; False: QEMU hung up."""
        try:
            return bool(self._qemu.doorbell.recv(4096))
        except BlockingIOError:
            return True
        except OSError:
            return False
