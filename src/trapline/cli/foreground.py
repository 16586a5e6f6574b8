"""A program that has the terminal while this one goes on working for it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from trapline.signals import HeldSignals

_OURS: Final = 0
"""The process group of this process."""
_PATIENCE: Final = 5.0
"""Seconds that the program has to end after it was asked to."""


class Foreground(NamedTuple):
    """The program that runs."""

    ended: int
    """A file that is readable when it has ended."""
    end: Callable[[], None]
    """Ends it, and waits for that."""


@contextlib.contextmanager
def foreground(command: Sequence[str]) -> Iterator[Foreground]:
    """Start a program; the exit waits until it has ended, and ends it where that is for an interrupt.

    It is a job of its own in the foreground of the terminal, as a shell would start it: Ctrl-C is for it alone, and
    Ctrl-Z stops it and this process with all that it started.
    """
    ended, ends = os.pipe()
    terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    # A job in the background may give the terminal away, and is stopped below.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTTOU, signal.SIGTSTP)}
    with contextlib.ExitStack() as undo:
        undo.callback(_put_back, before)
        with HeldSignals():
            process = subprocess.Popen(command, process_group=0)  # noqa: S603  # the user's program
            _give(terminal, process.pid)

            def wait() -> None:
                while True:
                    _, status = os.waitpid(process.pid, os.WUNTRACED)
                    if not os.WIFSTOPPED(status):
                        break
                    _give(terminal, os.getpgrp())
                    os.kill(_OURS, signal.SIGTSTP)  # what this process started
                    # Itself, here, until the shell continues it.
                    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
                    _give(terminal, process.pid)
                    os.killpg(process.pid, signal.SIGCONT)
                process.returncode = os.waitstatus_to_exitcode(status)
                os.close(ends)

            thread = threading.Thread(target=wait, daemon=True)
            thread.start()

            def end() -> None:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number)
                    thread.join(_PATIENCE)

            def leave(kind: type[BaseException] | None, *_: object) -> None:
                if kind is KeyboardInterrupt:
                    end()
                thread.join()
                os.close(ended)
                _give(terminal, os.getpgrp())

            undo.push(leave)
        yield Foreground(ended, end)


def _put_back(before: Mapping[signal.Signals, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` returned


def _give(terminal: int | None, group: int) -> None:
    """Put a process group in the foreground."""
    if terminal is not None:
        with contextlib.suppress(OSError):  # it is gone, or is not ours
            os.tcsetpgrp(terminal, group)
