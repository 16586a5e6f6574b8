"""QEMU is paused while the host has kept the mailbox for long, as in a debugger: the monitor polls, which takes a core.

The guest's clocks stand still meanwhile, as they do for gdb on QEMU alone.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol

_LONG: Final = 0.5
"""Seconds after which QEMU is paused. To pause and resume it takes about a millisecond."""
_LOOK: Final = 0.25
"""Seconds between two looks."""
_ANSWER: Final = 5.0
"""Seconds that QEMU has to obey."""


class Keeper(Protocol):
    """Who has the mailbox: `Handover`."""

    @property
    def running(self) -> bool:
        """The monitor has it."""

    @property
    def kept_for(self) -> float:
        """Seconds for which the host has had it."""


class Machine(Protocol):
    """What pauses and resumes QEMU: `Qmp`."""

    def run_state(self) -> str | None:
        """Return whether it is `running`, `paused`, ..."""

    def command(self, name: str, arguments: None = None, *, seconds: float | None = None) -> object:
        """Execute a command."""


class Rest:
    """Pauses QEMU from a thread of its own. Who hands the mailbox over calls `end` if it is `active`."""

    def __init__(self, machine: Machine, keeper: Keeper) -> None:
        self._machine, self._keeper = machine, keeper
        self.on_pause: Callable[[], object] = lambda: None
        """Called when QEMU was paused: its gdbstub may have said so."""
        self.active = False
        """QEMU is paused, or about to be. Set before a look at `Keeper.running`, which is set before a look at this."""
        self._lock = threading.Lock()
        self._look = threading.Event()
        self._hurries = self._closed = False
        """Of the first: QEMU is to be paused at the next look, if it can be."""
        self._thread = threading.Thread(target=self._watch, name="trapline-rest", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let QEMU go on."""
        with self.awake():
            pass

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let QEMU go on, and do not pause it meanwhile."""
        with self._lock:
            if self.active:
                self._machine.command("cont", seconds=_ANSWER)
                self.active = False
            yield

    def hurry(self) -> None:
        """Pause QEMU without delay, if it is the host that has the mailbox: it is known to keep it."""
        self._hurries = True
        self._look.set()

    def close(self) -> None:
        """End the thread. QEMU stays as it is. Safe to call twice."""
        self._closed = True
        self._look.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._look.wait(_LOOK)
            self._look.clear()
            if self._closed:
                return
            hurries, self._hurries = self._hurries, False
            if not self.active and not self._keeper.running and (hurries or self._keeper.kept_for >= _LONG):
                self._begin()

    def _begin(self) -> None:
        """Pause QEMU, unless the mailbox is handed over meanwhile, or the user has paused it."""
        with self._lock:
            self.active = True
            if self._keeper.running or self._machine.run_state() != "running":
                self.active = False
                return
            self._machine.command("stop", seconds=_ANSWER)
            self.on_pause()
