"""Standard input that ends when a signal ends the server: the SDK's reader can be stopped in no other way."""

import os
import signal
import socket
import threading
from types import FrameType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AT_ONCE: Final = 1 << 16


class EndingStdin:
    """While it is open, descriptor 0 has what the process's standard input has, and ends with it or at a signal.

    A second signal has its usual effect.
    """

    def __init__(self) -> None:
        self.came: int | None = None
        """The number of the signal that came; None: none did."""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._given = os.dup(0)
        self._ours, theirs = socket.socketpair()
        with theirs:
            os.dup2(theirs.fileno(), 0)
        threading.Thread(target=self._pass_on, name="trapline stdin", daemon=True).start()
        for number in _SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        os.dup2(self._given, 0)

    def _pass_on(self) -> None:
        try:
            while data := os.read(self._given, _AT_ONCE):
                self._ours.sendall(data)
            self._ours.shutdown(socket.SHUT_WR)
        except OSError:  # it ended at a signal
            return

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.came = number
        self._ours.shutdown(socket.SHUT_WR)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what `signal.signal` returned
        self._before.clear()
