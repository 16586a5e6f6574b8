"""The host's side of the thread that executes the guest: the thread that stops it, and Ctrl-C."""

import threading
from collections.abc import Callable
from typing import Final

from .pacemaker import Pacemaker
from .sigint import DeferredSigint

_MAIN: Final = threading.main_thread().ident


class Host:
    """What the CPUs of a machine share: one of them executes at a time."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """`stop` stops the CPU that executes."""
        self.pacemaker = pacemaker = Pacemaker(stop)
        self._in_main = False
        """The thread that executes the guest is the one that Python's signal handlers run in."""
        self.sigint = DeferredSigint(stop, lambda: pacemaker.running and self._in_main)

    def enter(self) -> None:
        """Take note of the thread that is about to execute the guest: the calling one."""
        self._in_main = threading.get_ident() == _MAIN

    def close(self) -> None:
        """End the thread, and give Ctrl-C back."""
        self.pacemaker.close()
        self.sigint.close()
