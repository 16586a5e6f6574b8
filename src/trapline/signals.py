"""Puts signals off where what their handlers raise, as that of Ctrl-C does, would do harm.

While a guest runs: an exit that was half handled would be handled again, and be recorded twice.

As a process is started: Python runs the handler of a signal that comes during the fork in the first code after it. That
is a function by which a library gives back a lock that it held meanwhile: what is raised there is lost, and the lock
stays taken. And nobody ends a process whose number was not stored yet.
"""

import _thread
import os
import signal
import threading
import time
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


class InterruptLater:
    """While it is open, what the handler of Ctrl-C raises is put off, and the code is asked for its end.

    What a second one raises is not put off, nor is it where the code does not end.
    """

    def __init__(self, ask: Callable[[], object], patience: float) -> None:
        """`ask` is called in the handler; `patience`: seconds that the code has then."""
        self._ask, self._patience = ask, patience
        self._handler: Handler | None = None
        self._open = False
        self._raised: BaseException | None = None

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler, self._open = handler, True
            signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if self._raised is not None:
            raise self._raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        assert self._handler is not None
        try:
            self._handler(number, frame)
        except BaseException as raised:
            if self._raised is not None or not self._open:
                self._raised = None
                raise
            self._raised = raised
            self._ask()
            # Not a `Thread`: to start that takes locks, which may be taken.
            _thread.start_new_thread(self._insist, ())

    def _insist(self) -> None:
        time.sleep(self._patience)
        if self._raised is not None and self._open:
            os.kill(os.getpid(), signal.SIGINT)
