"""SIGTERM and SIGHUP end a run as Ctrl-C does: with its summary, and with what was recorded in its file."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)
_AGAIN: Final = 0.05
"""Seconds after which a lost interrupt is sent again."""
_LONGEST_IMPORT: Final = 5.0
"""Seconds that an interrupt waits for the end of an import."""
_IMPORT: Final = "<frozen importlib._bootstrap>"
"""The file of the functions that import a module."""
_BASE: Final = 128
"""Added to the number of a signal, as shells do."""


class Termination:
    """While it is open, these signals raise SIGINT in their place, unless they are ignored, as under nohup."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, object] = {}
        self._came: int | None = None
        self._hook: Callable[[sys.UnraisableHookArgs], object] | None = None
        self._imports = 0
        """How many imports the caller is in."""
        self._waits = False
        """An interrupt waits for the end of an import."""

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
            self._imports = _imports(sys._getframe())  # noqa: SLF001  # it is documented
            for number in _SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._end)
            ctrl_c = signal.getsignal(signal.SIGINT)
            if ctrl_c is signal.default_int_handler or (self._before and ctrl_c is signal.SIG_IGN):
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hook is not None:
            sys.unraisablehook, self._hook = self._hook, None
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` returned

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._came = number
        signal.raise_signal(signal.SIGINT)  # a caller that blocks SIGINT blocks this one, too

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, but where SIGINT was ignored, as of a job of a shell, and none of ours came."""
        if self._before[signal.SIGINT] is signal.SIG_IGN and not self.came:
            return
        if self._waits or _imports(frame) <= self._imports:
            self._waits = False
            raise KeyboardInterrupt
        self._waits = True
        self._raise_after_import()

    def _raise_after_import(self) -> None:
        """Raise KeyboardInterrupt at the end of the import that this is in the middle of.

        Now the lock of all imports might stay taken, and a thread that imports would wait for it for ever.
        """
        limit = time.monotonic() + _LONGEST_IMPORT

        def look(frame: FrameType, event: str, argument: object) -> None:
            imported = (
                event == "return" and frame.f_code.co_filename == _IMPORT and _imports(frame) == self._imports + 1
            )
            if imported or time.monotonic() > limit:
                sys.setprofile(None)
                if self._waits:  # no second one was raised at once
                    self._waits = False
                    raise KeyboardInterrupt

        sys.setprofile(look)

    def _unraisable(self, lost: "sys.UnraisableHookArgs") -> None:
        """A finalizer loses the KeyboardInterrupt that is raised in it: send another."""
        if lost.exc_type is KeyboardInterrupt:
            # Not a `Thread`: to start that takes locks, which may be taken.
            _thread.start_new_thread(self._send_again, ())
        elif self._hook is not None:
            self._hook(lost)

    def _send_again(self) -> None:
        time.sleep(_AGAIN)
        if self._hook is not None:  # it is still open
            os.kill(os.getpid(), signal.SIGINT)


def exit_code_of(number: int) -> int:
    """Return what a process that is ended by a signal exits with."""
    return _BASE + number


def silence() -> None:
    """Let stdout and stderr lead nowhere: the terminal or the reader of a pipe is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _imports(frame: FrameType | None) -> int:
    """Return how many functions that import a module have been called down to a frame."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == _IMPORT
        frame = frame.f_back
    return count
