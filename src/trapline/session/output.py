"""The files that a run writes. What a file holds is kept until the processor has started."""

import contextlib
import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

from trapline.errors import TraplineError, UsageError

from .clash import descriptor_of
from .patient_file import PatientFile
from .settings import PathLike
from .stream import Stream, is_stream

_STREAMS: Final = {1: "stdout", 2: "stderr"}
_HELD: Final = 0x1000
"""Bytes of a line that are written before it ends."""


class LineWriter:
    """Writes the guest's output to a binary file, flushed at each line."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held = bytearray()
        self._failed = False
        """A write failed, which was raised: no more is taken."""

    def wait_until(self, limit: float | None) -> None:
        """Wait for the reader until this time of `time.monotonic`; None: without end."""
        if isinstance(self._file, PatientFile):
            self._file.limit = limit

    def __call__(self, data: bytes) -> None:
        """Take what the guest wrote."""
        self.write(data)

    def write(self, data: bytes) -> None:
        """Take what the guest wrote."""
        if self._failed:
            return
        self._held += data
        if b"\n" in data or len(self._held) >= _HELD:
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
            self._failed = True
            raise TraplineError(f"the guest's console cannot be written: {error.strerror}") from error
        finally:
            self._held.clear()

    def finish(self) -> None:
        """Write what is buffered, unless the reader has stalled: the run is over, and its result counts."""
        try:
            self.flush()
        except TraplineError as error:
            if not isinstance(error.__cause__, TimeoutError):
                raise


class OutputFile:
    """A file that a run creates or overwrites, in three steps, of which only the last changes it: check, open, begin.

    A file that did not exist and was not begun is removed again: a run that does not start leaves all as it was.
    """

    def __init__(self, role: str, name: PathLike, *, force: bool) -> None:
        """Check the name. Raises UsageError for a file that is not empty, unless `force`."""
        self._name, self._path = os.fspath(name), Path(name)
        self._descriptor = descriptor_of(name)
        self._what = _STREAMS.get(self._descriptor or 0, f"{role} {self._name}")
        self._force = force
        self._created = self._begun = self._given_up = False
        self._file: PatientFile | None = None
        self._buffered: IO[str] | io.BufferedWriter | None = None
        self.stream: Stream | None = None
        """The buffered file, if somebody reads it meanwhile."""
        if self._descriptor is None:
            with contextlib.suppress(OSError, ValueError):
                self._check_empty(self._path.stat())

    def open(self) -> IO[bytes]:
        """Open the file without a change to what it holds; it is not buffered. Raises UsageError."""
        try:
            self._file = PatientFile(self._name, "w", opener=self._open)
        except (OSError, ValueError) as error:  # a NUL in the name
            raise UsageError(f"{self._what}: {getattr(error, 'strerror', None) or error}") from error
        return self._file

    def open_text(self) -> IO[str]:
        """Open the file like `open_buffered`, for text."""
        self._buffered = text = io.TextIOWrapper(self.open_buffered(), encoding="ascii")
        return text

    def open_buffered(self) -> io.BufferedWriter:
        """Open the file like `open`, buffered. A FIFO may get its reader later."""
        raw: io.RawIOBase
        if self._descriptor is None and self._is_fifo():
            raw = self._open_stream(self._open_fifo)
        else:
            self.open()
            assert self._file is not None
            raw, number = self._file, self._file.fileno()
            if is_stream(os.fstat(number).st_mode, number):
                copy = os.dup(number)
                self._file.close()
                self._file, raw = None, self._open_stream(lambda: copy)
        buffered: io.BufferedWriter = io.BufferedWriter(raw)
        self._buffered = buffered
        return buffered

    def _open_stream(self, opener: Callable[[], int]) -> Stream:
        try:
            self.stream = Stream(self._what, opener)
        except OSError as error:
            raise UsageError(f"{self._what}: {error.strerror}") from error
        return self.stream

    @property
    def is_stored(self) -> bool:
        """Whether it is, or will be, a regular file."""
        try:
            status = self._path.stat() if self._descriptor is None else os.fstat(self._descriptor)
        except (OSError, ValueError):
            return True
        return stat.S_ISREG(status.st_mode)

    def give_up(self) -> None:
        """Raise no error for what is still buffered when the file is closed: that it cannot be written was told."""
        self._given_up = True

    def remove(self) -> None:
        """Remove a file that is not needed any more."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _is_fifo(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return stat.S_ISFIFO(self._path.stat().st_mode)
        return False

    def _open_fifo(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def wait_until(self, limit: float | None) -> None:
        """See `LineWriter.wait_until`."""
        if self._file is not None:
            self._file.limit = limit

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Close the file after its writing. Raises TraplineError where it cannot be written."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TraplineError(f"{self}: {error.strerror}") from error
        finally:
            self.close()

    def begin(self) -> None:
        """Remove what the file held. Raises TraplineError."""
        if self._begun or self._file is None:
            return
        self._begun = True
        try:
            if self._descriptor is None and stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                self._file.truncate(0)
        except OSError as error:
            raise TraplineError(f"{self._what}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; remove it if it is new and was not begun."""
        file = self._buffered or self._file
        if file is None or file.closed:
            return
        if self._created and not self._begun and self._file is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(self._path.stat(), os.fstat(self._file.fileno())):
                    self._path.unlink()
        try:
            file.close()
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._given_up:
                raise TraplineError(f"{self._what}: {error.strerror}; what was recorded before is kept") from error

    def _open(self, name: str, flags: int) -> int:
        if self._descriptor is not None:
            if fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "it is open for reading only")
            return os.dup(self._descriptor)
        writing = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY
        if os.path.exists(name) or not name:  # noqa: PTH110  # without an error for a name that is too long
            descriptor = os.open(name, writing)
            try:
                self._check_empty(os.fstat(descriptor))  # it may be newer than the first check
            except UsageError:
                os.close(descriptor)
                raise
            return descriptor
        name = os.path.realpath(name)
        descriptor = os.open(name, writing | os.O_CREAT | os.O_EXCL, 0o666)
        self._created = True
        return descriptor

    def _check_empty(self, status: os.stat_result) -> None:
        holds = stat.S_ISBLK(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_size > 0)
        if holds and not self._force:
            raise UsageError(f"{self._what}: the file exists; --force overwrites it, or give another name")

    def __str__(self) -> str:
        return self._what
