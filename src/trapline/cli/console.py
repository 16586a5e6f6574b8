"""Where `trapline run` writes the guest's console: stdout, stderr or a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trapline.errors import TraplineError, UsageError


class Console:
    """Writes the guest's output to a binary file, flushed at each line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        """Take what the guest wrote."""
        self._held += data
        if b"\n" in data or len(self._held) >= 0x1000:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered. Raises TraplineError where the file cannot be written, as on a full disk."""
        try:
            while self._held:
                del self._held[: self._file.write(self._held)]
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TraplineError(f"the guest's console cannot be written: {error.strerror}") from error
        finally:
            self._held.clear()


@contextlib.contextmanager
def open_console(name: str | None, otherwise: IO[bytes]) -> Iterator[Console]:
    """Open the file of `--console`; without one write to `otherwise`, a stream that stays open. Raises UsageError."""
    if name is None:
        console = Console(otherwise)
        yield console
        console.flush()
        return
    try:
        file = Path(name).open("wb", buffering=0)  # noqa: SIM115  # closed below
    except OSError as error:
        raise UsageError(f"--console {name}: {error.strerror}") from error
    with file:
        console = Console(file)
        yield console
        console.flush()
