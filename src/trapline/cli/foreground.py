"""A program that has the terminal while this one goes on working for it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Final

_OURS: Final = 0
"""The process group of this process."""


@contextlib.contextmanager
def foreground(command: Sequence[str]) -> Iterator[int]:
    """Start a program; the file descriptor that this gives is readable when it has ended, and the exit waits for that.

    It is a job of its own in the foreground of the terminal, as a shell would start it: Ctrl-C is for it alone, and
    Ctrl-Z stops it and this process with all that it started.
    """
    ended, ends = os.pipe()
    terminal = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    process = subprocess.Popen(command, process_group=0)  # noqa: S603  # the user's program
    # A job in the background may give the terminal away, and is stopped below.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTTOU, signal.SIGTSTP)}
    try:
        _give(terminal, process.pid)

        def wait() -> None:
            while True:
                _, status = os.waitpid(process.pid, os.WUNTRACED)
                if not os.WIFSTOPPED(status):
                    break
                _give(terminal, os.getpgrp())
                os.kill(_OURS, signal.SIGTSTP)  # what this process started
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # itself, here, until the shell continues it
                _give(terminal, process.pid)
                os.killpg(process.pid, signal.SIGCONT)
            process.returncode = os.waitstatus_to_exitcode(status)
            os.close(ends)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        try:
            yield ended
        finally:
            thread.join()
            os.close(ended)
            _give(terminal, os.getpgrp())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _give(terminal: int | None, group: int) -> None:
    """Put a process group in the foreground."""
    if terminal is not None:
        with contextlib.suppress(OSError):  # it is gone, or is not ours
            os.tcsetpgrp(terminal, group)
