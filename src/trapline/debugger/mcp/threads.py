"""Work that blocks, in a thread: the server answers meanwhile, and the work stops when its request is cancelled."""

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel

from trapline.errors import TraplineError

_T = TypeVar("_T")


class Cancelled(TraplineError):
    """The client does not want the answer any more."""


class Work:
    """The work of one request, and how another thread stops it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], object] | None = None
        self._cancelled = False

    def interrupted_by(self, interrupt: Callable[[], object] | None) -> None:
        """Let a function be called when the work is cancelled; at once, if it was. None: nothing runs any more."""
        with self._lock:
            self._interrupt = interrupt
            if self._cancelled and interrupt is not None:
                interrupt()

    def check(self, _: object = None) -> None:
        """Raise Cancelled if the work was cancelled. Readers of traces call it for each batch."""
        if self._cancelled:
            raise Cancelled("the request was cancelled")

    def cancel(self) -> None:
        """Stop the work as soon as it can be."""
        with self._lock:
            self._cancelled = True
            if self._interrupt is not None:
                self._interrupt()


class Worker:
    """A thread of a machine's own: Linux kills a QEMU when the thread that started it ends."""

    def __init__(self) -> None:
        self._tasks = queue.SimpleQueue[Callable[[], None] | None]()
        threading.Thread(target=self._work, name="trapline machine", daemon=True).start()

    def start(self, task: Callable[[], None]) -> None:
        """Let it do something after what it was given before."""
        self._tasks.put(task)

    def end(self) -> None:
        """Let it end after all that."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


def _in_new_thread(task: Callable[[], None]) -> None:
    threading.Thread(target=task, name="trapline request", daemon=True).start()


async def in_thread(do: Callable[[Work], _T], start: Callable[[Callable[[], None]], None] = _in_new_thread) -> _T:
    """Return what a function returns that a thread runs. If the request is cancelled, wait until it has stopped."""
    work, over, token = Work(), anyio.Event(), anyio.lowlevel.current_token()
    future = Future[_T]()

    def run() -> None:
        try:
            future.set_result(do(work))
        except BaseException as error:  # noqa: BLE001  # raised where it is waited for
            future.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            anyio.from_thread.run_sync(over.set, token=token)

    start(run)
    try:
        await over.wait()
    except anyio.get_cancelled_exc_class():
        work.cancel()
        with anyio.CancelScope(shield=True):
            await over.wait()
        raise
    return future.result()
