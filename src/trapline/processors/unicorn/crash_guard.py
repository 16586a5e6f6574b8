"""Runs a guest in a thread of its own, so that Unicorn's crash is the end of a run and not of the process."""

import ctypes
import signal
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from trapline.errors import ProcessorLost

from . import fatal_signals
from .one_cpu import OneCpu

_T = TypeVar("_T")

_LOOK: Final = 0.25
"""Seconds between two looks at the thread."""
_UNANSWERED: Final = 10.0
"""Seconds for which Unicorn was told to stop and did not: it hangs, if it still executes after `_STUCK` more looks."""
_STUCK: Final = 8
_GRACE: Final = 60
"""Looks for which a guest may still run after it was interrupted."""
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Python handles signals in the main thread: it is to wake for them."""


class CrashGuard:
    """Guards the runs of one processor."""

    def __init__(self, processor: OneCpu, place: Callable[[], str]) -> None:
        """`place` returns, for a message, where the guest was as Unicorn crashed."""
        self._processor, self._place = processor, place
        self._worker: _Worker[Any] | None = None

    @property
    def executing(self) -> int:
        """The number of the CPU that executes, or did so last."""
        return self._processor.pc.current.number

    def is_running_here(self) -> bool:
        """Return whether the calling thread is the one that runs the guest."""
        return self._worker is not None and self._worker.ident == threading.get_ident()

    def run(self, execute: Callable[[], _T], interrupt: Callable[[], object]) -> _T:
        """Call a function that runs the guest, in another thread, and return what it returns.

        `interrupt` makes the function return; it is called when something is raised in this thread meanwhile, as by
        Ctrl-C. Raises ProcessorLost if Unicorn crashes or hangs.
        """
        self._worker = worker = _Worker(execute)
        try:
            worker.start()
            self._wait(worker)
        except BaseException:
            interrupt()
            self._wait(worker, _GRACE)
            raise
        finally:
            self._worker = None
            returned = worker.returned
            if not returned:
                worker.abandon()
                crashed = worker.signal is not None
                self._processor.abandon(crashed=crashed, executing=crashed or worker.is_executing())
        if returned:
            return worker.result()
        how = "hangs" if worker.signal is None else f"was killed by {signal.Signals(worker.signal).name}"
        raise ProcessorLost(f"Unicorn {how} in the block of code at {self._place()}; try --processor qemu")

    def _wait(self, worker: "_Worker[_T]", looks: int | None = None) -> None:
        """Wait until the function has returned, until Unicorn crashes or hangs, or for so many looks."""
        stuck = 0
        while not worker.wait(_LOOK):
            stuck = stuck + 1 if self._processor.unanswered >= _UNANSWERED and worker.is_executing() else 0
            if stuck == _STUCK or looks == 0:
                return
            if looks is not None:
                looks -= 1


class _Worker(Generic[_T]):
    """A thread that calls a function."""

    def __init__(self, execute: Callable[[], _T]) -> None:
        self._execute = execute
        self._over = threading.Lock()
        self._over.acquire()
        self._result: list[_T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="guest", daemon=True)
        self.returned = False
        """The function has returned, or raised something."""
        self.signal: int | None = None
        """The signal of which Unicorn died."""

    @property
    def ident(self) -> int:
        """The ident of the thread."""
        return self._thread.ident or 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Return whether the thread is over within this time."""
        return self._over.acquire(timeout=seconds)

    def is_executing(self) -> bool:
        """Return whether the thread is in Unicorn."""
        return fatal_signals.is_executing(self.ident)

    def result(self) -> _T:
        """Return what the function returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._result[0]

    def abandon(self) -> None:
        """Forget the thread; if it has not crashed and ever goes on, it ends."""
        fatal_signals.forget(self.ident)
        if self.signal is None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit))

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        with fatal_signals.watched(self._died):
            try:
                self._result.append(self._execute())
            except BaseException as error:  # noqa: BLE001  # `result` raises it
                self._error = error
        self.returned = True
        self._over.release()

    def _died(self, number: int) -> None:
        self.signal = number
        if self._over.locked():
            self._over.release()
