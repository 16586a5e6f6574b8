"""The files that a client may name: those below the directories that the user allowed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trapline.errors import UsageError
from trapline.symbols import parse_option
from trapline.trace.files.writer import PART
from trapline.typed import shortened

_SAMPLE: Final = "sample:"


class Files:
    """Directories, and the files below them. Names are relative to the first one; links are followed."""

    def __init__(self, allowed: Sequence[str | Path]) -> None:
        """Raise UsageError for what is not a directory."""
        for each in allowed:
            if not os.path.isdir(each):  # noqa: PTH112  # pathlib raises for a name that is too long
                raise UsageError(f"--allow {shortened(str(each))}: not a directory")
        self.allowed = tuple(Path(each).resolve() for each in allowed)
        """The directories; the first is the one that the server was started in."""

    def find(self, name: str) -> str:
        """Return the path of a file, without links. Raises UsageError unless it is one, below an allowed directory."""
        path = self._real(name)
        if not os.path.isfile(path):  # noqa: PTH113
            what = "not a regular file" if os.path.exists(path) else "no such file"  # noqa: PTH110
            raise UsageError(f"{shortened(name)}: {what}; names are relative to {self.allowed[0]}")
        return path

    def guest(self, name: str) -> str:
        """Return a guest: `sample:NAME` as it is, or the path of a file. Raises UsageError."""
        return name if name.startswith(_SAMPLE) else self.find(name)

    def symbols(self, option: str) -> str:
        """Return `FILE[@SLIDE]` with the path of the file. Raises UsageError."""
        path, slide = parse_option(os.path.join(self.allowed[0], option))  # noqa: PTH118  # pathlib drops a slash
        found = self.find(str(path))
        return found if slide is None else f"{found}@{slide:#x}"

    def trace(self, name: str) -> str:
        """Return the path of a trace; of one that is not complete only its part may be there. Raises UsageError."""
        path = self._real(name)
        if not os.path.lexists(path + PART):
            return self.find(name)
        self.find(path + PART)  # it may be read in place of the other
        return self.find(name) if os.path.exists(path) else path  # noqa: PTH110

    def _real(self, name: str) -> str:
        """Return the path without links. Raises UsageError unless it is below an allowed directory."""
        try:
            path = Path(os.path.realpath(self.allowed[0] / name))
        except ValueError as error:  # a NUL, or what is not a character
            raise UsageError(f"{shortened(name)}: not a file name") from error
        if not any(path.is_relative_to(each) for each in self.allowed):
            raise UsageError(
                f"{shortened(name)}: only files below {', '.join(map(str, self.allowed))} can be used; the user allows "
                "others when the server is started: trapline mcp --allow DIR"
            )
        return str(path)
