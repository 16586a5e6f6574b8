"""SIGTERM and SIGHUP end a run as Ctrl-C does: with its summary, and with what was recorded in its file."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
_AGAIN: Final = 0.05
"""Seconds after which a lost interrupt is sent again."""
_BASE: Final = 128
"""Added to the number of a signal, as shells do."""


class Termination:
    """While it is open, these signals raise SIGINT in their place, unless they are ignored, as under nohup."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, object] = {}
        self._came: int | None = None
        self._hook: Callable[[sys.UnraisableHookArgs], object] | None = None

    @property
    def came(self) -> bool:
        """Whether one of them came."""
        return self._came is not None

    @property
    def exit_code(self) -> int:
        """What a process that is ended by the signal exits with; without one it was Ctrl-C."""
        return exit_code_of(signal.SIGINT if self._came is None else self._came)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._end)
            if self._before and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hook is not None:
            sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` returned

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        signal.raise_signal(signal.SIGINT)  # a caller that blocks SIGINT blocks this one, too

    def _unraisable(self, lost: "sys.UnraisableHookArgs") -> None:
        """A finalizer, or a callback of an import, loses the KeyboardInterrupt that is raised in it: send another."""
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGINT)).start()
        elif self._hook is not None:
            self._hook(lost)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """SIGINT was ignored, as of a job in the background of a shell, and is unless `_end` raised it."""
        if self.came:
            raise KeyboardInterrupt


def exit_code_of(number: int) -> int:
    """Return what a process that is ended by a signal exits with."""
    return _BASE + number


def silence() -> None:
    """Let stdout and stderr lead nowhere: the terminal or the reader of a pipe is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
