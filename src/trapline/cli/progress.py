"""A progress bar for long work: on a terminal, once it takes long."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

_PATIENCE: Final = 0.5
"""Seconds after which the progress is shown."""


@contextlib.contextmanager
def progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function that takes the number of records that were read since; `total`: how many there are, if known."""
    if not sys.stderr.isatty():
        yield lambda records: None
        return
    bar = _Progress(total)
    try:
        yield bar.seen
    finally:
        bar.close()


class _Progress:
    """A bar on stderr, once a reading takes long."""

    def __init__(self, total: int | None) -> None:
        self._total, self._seen = total, 0
        self._since = time.monotonic()
        self._turn = threading.Lock()  # `diff` reads both traces at once
        self._bar: Any = None
        self._task: Any = None

    def seen(self, records: int) -> None:
        """Take the number of records that were read."""
        with self._turn:
            self._show(records)

    def _show(self, records: int) -> None:
        self._seen += records
        if self._bar is None and time.monotonic() > self._since + _PATIENCE:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stderr), transient=True)
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._seen)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._since = float("inf")
