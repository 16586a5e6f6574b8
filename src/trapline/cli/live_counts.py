"""`run --stat`: how often each exception was recorded so far, redrawn in place on a terminal while the guest runs."""

import sys
import threading
import time
from typing import Any, Final, Self

from trapline.arch.vectors import mnemonic
from trapline.trace.tally import Tally

_EVERY: Final = 0.5
"""Seconds between two tables."""


class LiveCounts:
    """Shows the counts of a tally from a thread of its own, until it is closed; only on a terminal."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _show(self) -> None:
        if self._over.wait(_EVERY):  # what loads takes time from a guest that is over at once
            return
        from rich.console import Console
        from rich.live import Live

        meter = Meter(time.monotonic() - _EVERY)
        console = Console(file=sys.stderr)
        with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False) as live:
            while True:
                live.update(_table(meter.rows(self._tally.counts(), time.monotonic())), refresh=True)
                if self._over.wait(_EVERY):
                    return


class Meter:
    """Makes rates of counts."""

    def __init__(self, started: float) -> None:
        """`started` is in seconds, on the clock of the later times."""
        self._started = self._before = started
        self._counts: dict[int, int] = {}

    def rows(self, counts: dict[int, int], now: float) -> list[tuple[str, str, str, str]]:
        """Return a row for each vector, and one for all: name, count, and how often a second lately and on average."""
        lately, all_the_time = max(now - self._before, 1e-9), max(now - self._started, 1e-9)
        new = {vector: times - self._counts.get(vector, 0) for vector, times in counts.items()}
        self._before, self._counts = now, counts
        rows = [(f"{mnemonic(vector)} ({vector})", times, new[vector]) for vector, times in sorted(counts.items())]
        rows.append(("all", sum(counts.values()), sum(new.values())))
        return [
            (name, f"{times:,}", f"{recent / lately:,.0f}", f"{times / all_the_time:,.0f}")
            for name, times, recent in rows
        ]


def _table(rows: list[tuple[str, str, str, str]]) -> Any:  # noqa: ANN401  # rich's
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("exception")
    for head in ("count", "per second now", "on average"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*row)
    return table
