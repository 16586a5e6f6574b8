"""The host's half of the handshake with the monitor: hand over a command, wait until the monitor is done with it."""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Final

from trapline.errors import LaunchError, ProcessorLost
from trapline.machine.processor import Outcome

from .damage import Damage
from .handover import Handover
from .layout import Command, SharedMemory
from .process import QemuProcess
from .resets import Resets
from .spin import Spin
from .watchdog import Watchdog

SELDOM: Final = 0xFF
"""The deadline is checked at exits whose number has none of these bits."""
BUSY_POLL: Final = 0.02
_QUIET: Final = 1.0
"""Seconds between two calls of `on_quiet`."""
IDLE_POLL: Final = 0.1
"""Longest sleep between two reads of the ring, in seconds; the monitor rings when it is half full."""


class Handshake(Handover):
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
        super().__init__(qemu, shared, watchdog, damage, resets)
        self.reported = False
        """The firmware has reported once: from now on an exit may follow within microseconds."""
        self._expected: float | None = time.monotonic()
        """Since when the firmware or the monitor is to report a reset; None: the guest runs."""
        self.on_quiet: Callable[[], None] = lambda: None
        """Called in the thread that waits for a guest that runs, once a second."""
        self._look_at = 0.0
        self._spin = Spin()
        self._on_wake = on_wake
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._doorbell = qemu.doorbell.fileno()
        for descriptor in (self._doorbell, self._wake_read):
            self._poll.register(descriptor, select.POLLIN)

    def expect_report(self) -> None:
        """Hand the mailbox to the firmware, which starts the monitor."""
        self.give(Command.RESUME)
        if self._expected is None:  # else it was started before, in vain
            self._expected = time.monotonic()

    def report_came(self) -> None:
        """Note that the monitor has reported a reset."""
        self.reported, self._expected = True, None

    def _is_overdue(self) -> bool:
        """Return whether the deadline has passed, seldom: exits that come during the spin would outlast it."""
        return self._deadline is not None and not self._exits & SELDOM and time.monotonic() > self._deadline

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
        if self.reported and not self._is_overdue():
            spin = self._spin
            for _ in range(spin.begin()):
                if owner[0]:
                    spin.found()
                    return self.take()
            spin.in_vain()
        poll = BUSY_POLL
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
            else:  # each leaves a byte of the doorbell's, for which its socket has to have room
                self._drain_doorbell()
            poll = BUSY_POLL if self.ring.drain() else IDLE_POLL
            if owner[0]:
                return self.take()
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
