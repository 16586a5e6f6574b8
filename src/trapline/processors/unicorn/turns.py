"""How long each of several CPUs executes before the next one does: by time, or by instructions as a seed has it."""

import random
import time
from collections.abc import Callable
from typing import Final, Protocol

from trapline.devices import SECOND
from trapline.machine.processor import Outcome

from .clock import TICK, InstructionCounter
from .core import Core
from .engine import ENTRY, is_aside
from .pc import Pc
from .stops import Stop

_TURN: Final = 0.002
"""Seconds of a turn by time."""
_MAGNITUDES: Final = 4
"""A turn has up to 10 to this many instructions; each magnitude is as likely as another."""
_BEFORE: Final = (Stop.ASKED, Stop.BREAKPOINT)
"""Stops before an instruction that was counted already."""
_ENTERING: Final = 2
"""Instructions outside the guest: VMLOAD, VMRUN."""


class Turns(Protocol):
    """Decides when a turn ends."""

    def begin(self) -> None:
        """Begin a turn."""

    def execute(self, core: Core, deadline: float | None) -> Outcome | None:
        """Execute a CPU; None: its turn is over. KICKED is also what comes when it gave up its turn."""

    def wait(self, due: int, deadline: float | None) -> None:
        """Wait, with all CPUs halted, until a time of the machine."""


class TurnsByTime:
    """Turns of two milliseconds, without end while no other CPU is started."""

    def __init__(self, pc: Pc) -> None:
        self._pc = pc
        self._end: float | None = None
        """When the turn ends, on the clock of `time.monotonic`."""

    def begin(self) -> None:
        """See `Turns.begin`."""
        several = sum(core.is_started for core in self._pc.cores) > 1
        self._end = time.monotonic() + _TURN if several else None

    def execute(self, core: Core, deadline: float | None) -> Outcome | None:
        """See `Turns.execute`."""
        ends = [at for at in (self._end, deadline) if at is not None]
        outcome = core.loop.run(min(ends, default=None))
        over = outcome is Outcome.DEADLINE and (deadline is None or time.monotonic() < deadline)
        return None if over else outcome

    def wait(self, due: int, deadline: float | None) -> None:
        """See `Turns.wait`."""
        seconds = (self._pc.clock.started + due - time.monotonic_ns()) / SECOND
        if deadline is not None:
            seconds = min(seconds, deadline - time.monotonic())
        if seconds > 0:
            self._pc.host.pacemaker.rest(seconds)


class TurnsBySeed:
    """Turns of so many instructions as a seed has it: the same seed leads to the same run.

    Time goes by instructions as well. Each instruction is counted, which makes a guest three times as slow.
    """

    def __init__(self, pc: Pc, counter: InstructionCounter, seed: int) -> None:
        self._pc, self._counter = pc, counter
        self._random = random.Random(seed)
        self._left = 0
        """Instructions of the turn."""
        for core in pc.cores:
            core.engine.trace(True)
            core.hooks.execute = self._counting(core)

    def begin(self) -> None:
        """See `Turns.begin`."""
        self._left = int(10 ** self._random.uniform(0, _MAGNITUDES))

    def execute(self, core: Core, deadline: float | None) -> Outcome | None:
        """See `Turns.execute`."""
        return core.loop.run(deadline)

    def wait(self, due: int, deadline: float | None) -> None:
        """See `Turns.wait`."""
        self._counter.advance(due)

    def _counting(self, core: Core) -> Callable[[int], int]:
        """Return what runs a CPU up to the end of its turn, or up to the next event of a device.

        Unicorn counts an instruction before it executes it, and so too many by one where it stops between two.
        """
        binding, hooks, pending, devices = core.binding, core.hooks, core.pending, self._pc.devices
        run, executed, counter = hooks.execute, binding.counter(), self._counter

        def run_counted(address: int) -> int:
            executed.value = 0
            if is_aside(address):
                return run(address)
            due = devices.next_event()
            until = self._left if due is None else min(self._left, max(0, due - counter.now()) // TICK + 1)
            enters = address == ENTRY
            if not binding.is_limited:
                binding.set_limit(max(1, until) + (_ENTERING if enters else 0))
            counter.begin(executed)
            try:
                return run(address)
            finally:
                count = max(0, executed.value - (hooks.event in _BEFORE) - (_ENTERING if enters else 0))
                counter.end(count)
                self._left -= count
                binding.set_limit(None)
                if self._left <= 0:
                    pending.give_up_turn()
                elif due is not None and due <= counter.now():
                    pending.due = True

        return run_counted
