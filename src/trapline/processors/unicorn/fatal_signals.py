"""Signals that end a process, caught where a thread executes guest code: that thread never goes on, the others do."""

import contextlib
import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from .binding import Binding

_SIGNALS: Final = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)
_EXECUTE: Final = Binding.run.__code__
_ACTION_SIZE: Final = 512
"""Bytes, more than `struct sigaction` has in any libc: it is kept and given back as it is."""

_libc: Final = ctypes.PyDLL(None)
_changing: Final = threading.Lock()
_for_ever: Final = threading.Lock()
_for_ever.acquire()
_before: Final[dict[int, ctypes.Array[ctypes.c_char]]] = {}
"""What each signal did before."""
_watched: Final[dict[int, Callable[[int], None]]] = {}
"""What to call when a thread dies, by its ident."""


def is_executing(thread: int) -> bool:
    """Return whether a thread is in Unicorn, and not in what Unicorn called back."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001  # the only way to see another thread's
    return frame is not None and frame.f_code is _EXECUTE


@contextlib.contextmanager
def watched(died: Callable[[int], None]) -> Iterator[None]:
    """Call `died(signal)` if this thread dies while it executes guest code, and then park it for ever.

    `died` is called once, or more often if something is raised in it from another thread.
    Elsewhere, and in other threads, the signals do what they did before.
    """
    ident = threading.get_ident()
    with _changing:
        if not _watched:
            for number in _SIGNALS:
                _before[number] = ctypes.create_string_buffer(_ACTION_SIZE)
                _libc.sigaction(number, None, _before[number])
                _libc.signal(number, _handler)
        _watched[ident] = died
    try:
        yield
    finally:
        forget(ident)


def forget(thread: int) -> None:
    """Stop watching a thread; after the last one signals do what they did before."""
    with _changing:
        if _watched.pop(thread, None) is not None and not _watched:
            for number in _SIGNALS:
                _libc.sigaction(number, _before[number], None)


def _handle(number: int) -> None:
    """Handle a signal, with Python's lock: `Binding.run` lets go of it while Unicorn runs."""
    died = _watched.get(threading.get_ident())
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  # see `is_executing`
    while frame is not None and frame.f_code is not _EXECUTE:
        frame = frame.f_back
    if died is None or frame is None:
        _libc.sigaction(number, _before[number], None)
        getattr(_libc, "raise")(number)  # blocked until this returns
        return
    while True:  # a return would execute what crashed again
        with contextlib.suppress(BaseException):
            died(number)
            _for_ever.acquire()


_handler: Final = ctypes.CFUNCTYPE(None, ctypes.c_int)(_handle)
