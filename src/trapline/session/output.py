"""The file of records."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trapline.errors import TraplineError, UsageError

from .settings import PathLike


@contextlib.contextmanager
def open_output(output: "PathLike | IO[str] | None") -> Iterator[IO[str] | None]:
    """Open the file for records if it is a path. Raises UsageError, and TraplineError where it cannot be written."""
    if output is None or not isinstance(output, str | Path):
        yield output  # type: ignore[misc]  # an os.PathLike is a Path or a file, here
        return
    try:
        file = Path(output).open("w", encoding="ascii")  # noqa: SIM115  # closed below, for its error
    except OSError as error:
        raise UsageError(f"-o {output}: {error.strerror}") from error
    try:
        yield file
    finally:
        try:
            file.close()
        except OSError as error:
            raise TraplineError(f"-o {output}: {error.strerror}; what was recorded before is kept") from error
