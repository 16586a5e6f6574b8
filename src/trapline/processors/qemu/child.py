"""A process that was started here, and its end, which is asked for without a lock.

`subprocess.Popen.poll` takes one: where a signal's handler raises in the middle, as that of Ctrl-C does, the lock stays
taken, and `Popen.wait` waits for ever.
"""

import contextlib
import os
import signal
import subprocess
import time
from typing import Final

_SHORTEST: Final = 0.0005
_LONGEST: Final = 0.05
"""Seconds between two looks whether it has ended."""


class Child:
    """A child process, which nobody else waits for."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self.pid = process.pid
        self.returncode: int | None = None
        """The exit code, or minus the number of the signal that ended it; None: it had not ended when it was asked."""

    def __del__(self) -> None:
        """End one that has become nobody's: who was to have it was interrupted."""
        self.end(0)

    def poll(self) -> int | None:
        """Ask whether it has ended, and return `returncode`."""
        if self.returncode is None:
            self._look(os.WNOHANG)
        return self.returncode

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, not longer than a time; return `returncode`."""
        limit, pause = time.monotonic() + seconds, _SHORTEST
        while self.poll() is None and time.monotonic() < limit:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        return self.returncode

    def end(self, patience: float) -> None:
        """Ask it to end, kill it when it has not after so many seconds, and wait. Safe to call twice."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            if self.wait(patience) is None:
                os.kill(self.pid, signal.SIGKILL)
                self._look(0)
        if self._process.returncode is None:
            self._process.returncode = self.returncode
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def _look(self, options: int) -> None:
        """Note its end, which leaves it a zombie: its number is not given to another process until `end`."""
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | options)
        except ChildProcessError:  # SIGCHLD is ignored: nobody is told how it ended
            self.returncode = 0
            return
        if found is not None:
            self.returncode = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
