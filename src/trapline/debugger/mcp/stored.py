"""The traces of a server's runs: a private folder, which is gone when the server is."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from trapline.errors import UsageError
from trapline.typed import shortened

from .files import Files

KEPT: Final = 24
"""Traces that are kept: the newest."""
_BYTES: Final = 1 << 30
"""Bytes of them; the newest is kept whatever its size."""


class Stored:
    """A run of this server."""

    def __init__(self, number: str, path: str, guest: str) -> None:
        self.number, self.path, self.guest = number, path, guest
        self.document: dict[str, Any] | None = None
        """Its result, as `trapline run --json` prints it; None: it is not over, or is an imported log."""
        self.findings: list[str] = []


class Runs:
    """Runs by number: `r1`, `r2`, ..."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._folder = tempfile.TemporaryDirectory(prefix="trapline-mcp-")
        self._runs: dict[str, Stored] = {}
        self._numbers = 0
        self.is_held: Callable[[str], bool] = lambda number: False
        """Whether the machine of a run is held: its trace is being written."""

    def new(self, guest: str) -> Stored:
        """Return a run that begins; its trace goes to its path."""
        self._numbers += 1
        number = f"r{self._numbers}"
        run = Stored(number, str(Path(self._folder.name) / f"{number}.parquet"), guest)
        self._runs[number] = run
        self._forget()
        return run

    def find(self, number: str) -> Stored:
        """Return a run. Raises UsageError."""
        run = self._runs.get(number)
        if run is None:
            kept = ", ".join(list(self._runs)) or "none: call run first"
            raise UsageError(f"{shortened(number)}: there is no such run. Runs that are kept: {kept}")
        return run

    def drop(self, run: Stored) -> None:
        """Forget a run, with its trace."""
        self._runs.pop(run.number, None)
        for path in (run.path, f"{run.path}.part"):
            Path(path).unlink(missing_ok=True)

    def trace(self, name: str) -> str:
        """Return the path of the trace of a run, by number, or of a file. Raises UsageError."""
        if name in self._runs or (name[:1] == "r" and name[1:].isdecimal()):
            return self.find(name).path
        return self._files.trace(name)

    def findings(self, name: str) -> list[str]:
        """Return what was found at the end of a run; of a file nothing is known."""
        run = self._runs.get(name)
        return [] if run is None else run.findings

    def close(self) -> None:
        """Remove all."""
        self._runs.clear()
        self._folder.cleanup()

    def _forget(self) -> None:
        runs = list(self._runs.values())  # other threads drop runs
        sizes = {run.number: _size(run.path) for run in runs}
        for run in [run for run in runs if not self.is_held(run.number)][:-1]:
            if len(sizes) <= KEPT and sum(sizes.values()) <= _BYTES:
                return
            self.drop(run)
            del sizes[run.number]


def _size(path: str) -> int:
    return os.stat(path).st_size if os.path.exists(path) else 0  # noqa: PTH110, PTH116  # it may be gone
