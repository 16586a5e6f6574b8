"""Where the sources of a guest are on this machine."""

import os.path
from pathlib import Path
from typing import Final

from trapline.errors import UsageError

from . import bodies

_LARGEST: Final = 16 << 20
"""Bytes of a source that are sent."""


class Sources:
    """The sources that symbols name. The compiler may have run on another machine."""

    def __init__(self, roots: list[str]) -> None:
        """`roots` are directories in which they are looked for."""
        self._roots = roots
        self._known: dict[tuple[str | None, str], bodies.Source] = {}
        self._missing: list[str] = []

    def find(self, directory: str | None, file: str) -> bodies.Source:
        """Return a source that was compiled in a directory."""
        known = self._known.get((directory, file))
        if known is None:
            whole = os.path.normpath(os.path.join(directory or "", file))  # noqa: PTH118
            known = self._known[directory, file] = self._look(whole)
        return known

    def text(self, reference: int, path: str | None) -> str:
        """Return the text of a source. Raises UsageError where it is not on this machine."""
        if 0 < reference <= len(self._missing):
            raise UsageError(
                f"{self._missing[reference - 1]} is not on this machine: name the directory that has it in sourceRoots"
            )
        if path is None or reference:
            raise UsageError("there is no such source")
        try:
            with Path(path).open("rb") as file:
                return file.read(_LARGEST).decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: {getattr(error, 'strerror', None) or error}") from None

    def _look(self, whole: str) -> bodies.Source:
        name, parts = whole.rpartition("/")[2], whole.strip("/").split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        paths = (whole, *(os.path.join(root, tail) for tail in tails for root in self._roots))  # noqa: PTH118
        for path in paths:
            if os.path.isfile(path):  # noqa: PTH113
                return bodies.Source(name, os.path.abspath(path))  # noqa: PTH100
        self._missing.append(whole)
        return bodies.Source(
            name, source_reference=len(self._missing), origin=f"{whole} is not on this machine", presentation_hint=None
        )
