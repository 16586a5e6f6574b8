"""Whose turn it is, the monitor's or Python's: gives commands, and waits for the monitor to be done with them."""

import contextlib
import os
import select
import time
from collections.abc import Callable
from typing import Final

from trapline.arch.layout import offset_of
from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome, Statistics

from .machine import Machine
from .ring import Ring
from .shared import MAILBOX_AT, Command, Mailbox, Shared, Turn

_SPIN: Final = 2000
"""How often to look at the mailbox before sleeping: some 100 us, longer than a guest's next exit often takes."""
_BUSY_POLL: Final = 0.02
_IDLE_POLL: Final = 0.1
"""Seconds to sleep at most between two looks at the ring; the monitor rings when it is half full."""


class Turns:
    """Python's side of the doorbell and of `Mailbox.turn`."""

    def __init__(self, machine: Machine, shared: Shared, alarmed: Callable[[], None]) -> None:
        """`alarmed` is called by whoever waits after somebody called `alarm`."""
        self._machine = machine
        self._mailbox = shared.mailbox
        turn = MAILBOX_AT + offset_of(Mailbox, "turn")
        self._words = shared.memory[turn : turn + 4].cast("I")
        self.ring = Ring(shared)
        self.running = True  # until the firmware has reported the first time
        self.begun = False
        """The firmware has reported: a turn may be short."""
        self._exits = 0
        self._stopped = 0
        self._stopped_at = time.perf_counter_ns()
        self._alarmed = alarmed
        self._alarm_read, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        for descriptor in (machine.doorbell.fileno(), self._alarm_read):
            self._poll.register(descriptor, select.POLLIN)

    @property
    def statistics(self) -> Statistics:
        """How often and how long it was Python's turn."""
        return Statistics(self._exits, self._stopped / 1e9)

    def give(self, command: Command) -> None:
        """Give the monitor the turn."""
        self._mailbox.command = command
        self.running = True
        self._stopped += time.perf_counter_ns() - self._stopped_at
        self._words[0] = Turn.MONITOR

    def call(self, command: Command) -> None:
        """Let the monitor do something at once and wait until it has; ProcessorLost when it never will."""
        self.give(command)
        while not self._words[0]:
            if self._machine.process.poll() is not None:
                raise ProcessorLost("QEMU ended while the guest was stopped")
        self._take()

    def wait(self, deadline: float | None) -> Outcome:
        """Wait for the monitor's turn to end, and take records meanwhile. OFF: QEMU has ended."""
        words, mailbox = self._words, self._mailbox
        mailbox.attended = 1
        for _ in range(_SPIN if self.begun else 0):
            if words[0]:
                return self._take()
        poll = _BUSY_POLL
        while True:
            mailbox.attended = 0
            if not words[0]:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    self.ring.drain()
                    return Outcome.DEADLINE
                self._sleep(poll if left is None else min(poll, left))
            poll = _BUSY_POLL if self.ring.drain() else _IDLE_POLL
            if words[0]:
                return self._take()
            if self._machine.process.poll() is not None:
                self.ring.drain()
                return Outcome.OFF

    def alarm(self) -> None:
        """Wake whoever waits. Any thread may call this."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._alarm, b"k")

    def close(self) -> None:
        """Give the alarm's files back. Safe to call twice."""
        if self._alarm_read >= 0:
            os.close(self._alarm_read)
            os.close(self._alarm)
            self._alarm_read = self._alarm = -1

    def _take(self) -> Outcome:
        self._stopped_at = time.perf_counter_ns()
        self.running = False
        self._exits += 1
        self.ring.drain()
        return Outcome.VMEXIT

    def _sleep(self, seconds: float) -> None:
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor == self._alarm_read:
                os.read(descriptor, 64)
                self._alarmed()
            elif not self._hush():
                self._machine.wait()

    def _hush(self) -> bool:
        """Take what the doorbell said; False: QEMU hung up."""
        try:
            return bool(self._machine.doorbell.recv(4096))
        except BlockingIOError:
            return True
        except OSError:
            return False
