"""A limit to how long the monitor may take to report: a machine that cannot run it would be waited for without end."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from .layout import Mailbox

_PATIENCE: Final = 20.0
"""Seconds that the monitor has on a fast machine that does nothing else; it needs a tenth of one."""
_INTERVAL: Final = 3.0
"""Seconds between two checks of a machine that is silent."""
_TURNS: Final = 200_000
"""Of an empty loop: the work whose time tells how fast this machine is now."""
_FAST: Final = 0.006
"""Seconds that they take on a fast machine."""
_PAUSED: Final = ("prelaunch", "paused")
_RESUMES: Final = ("-s", "-gdb", "-monitor", "-nographic", "-qmp", "-qmp-pretty")
"""Options that give the user a way to resume a machine that was started with -S."""


class Watchdog:
    """Judges how long the monitor has been silent."""

    def __init__(self, command: Sequence[str], mailbox: Mailbox, status: Callable[[], str | None]) -> None:
        """`command` is QEMU's command line; `status` returns QEMU's run state, None where it gives no answer."""
        self._mailbox = mailbox
        self._status = status
        self._resumable = resumable(command)
        self._next = _INTERVAL
        self._paused = 0.0

    def complaint(self, since: float) -> str | None:
        """Return why nothing can be expected from the monitor any more, which was to report from `since` on.

        None: it still has time. `since` is on the clock of `time.monotonic`.
        """
        silent = time.monotonic() - since
        if silent < self._next:
            self._next = min(self._next, silent + _INTERVAL)
            self._paused = min(self._paused, silent)
            return None
        self._next = silent + _INTERVAL
        if self._status() in _PAUSED:
            self._paused = silent
            return None if self._resumable else "QEMU is paused (-S), and nothing was given that could resume it"
        if silent - self._paused < _PATIENCE * slowness():
            return None
        return f"trapline's monitor has not reported for {silent:.0f} seconds: {self._why()}"

    def _why(self) -> str:
        if self._mailbox.features:
            return "the CPU does not get from the firmware to the monitor; a plain -cpu qemu64 is known to work"
        return (
            "QEMU has not executed trapline's firmware, or the machine cannot reach the monitor's device; without "
            "options after -- it is known to work"
        )


def slowness() -> float:
    """Return how many times longer than a fast machine this one takes now, with all else that it does; 1 at least."""
    begin = time.perf_counter()
    for _ in range(_TURNS):
        pass
    return max(1.0, (time.perf_counter() - begin) / _FAST)


def resumable(command: Sequence[str]) -> bool:
    """Return whether the user has a way to resume a paused QEMU."""
    options = [argument.replace("--", "-", 1) for argument in command]
    return any(option in _RESUMES or option.startswith("mon:") for option in options) or options.count("-mon") > 1
