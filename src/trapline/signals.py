"""Holds signals back while a process is started: what their handlers raise, as that of Ctrl-C does, would do harm.

Python runs the handler of a signal that comes during the fork in the first code after it. That is a function by which
a library gives back a lock that it held meanwhile: what is raised there is lost, and the lock stays taken. And nobody
ends a process whose number was not stored yet.
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

Handler = Callable[[int, FrameType | None], object]


class HeldSignals:
    """While it is open, no handler runs in this thread. What came meanwhile is handled afterwards."""

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._holds = False
        self._came: list[int] = []

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # the only one that handlers run in
            self._holds = True
            try:
                self._replace()
            except BaseException:  # a handler has raised it before it was replaced
                self._put_back()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put_back()
        for number in self._came:
            signal.raise_signal(number)

    def _replace(self) -> None:
        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._take)

    def _put_back(self) -> None:
        self._holds = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._holds:
            self._came.append(number)
        else:  # what another handler raised kept this one from being put back
            self._handlers[number](number, frame)
