"""Takes the records of a run and hands them on: to the counts, to a file, to a terminal, to the black box."""

import contextlib
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Final

from trapline.errors import TraplineError
from trapline.machine.record import RECORD_SIZE

from .columns import view
from .lines import Lookup, json_lines, text_line
from .tally import Tally

BLACK_BOX: Final = 64
"""How many of the last exceptions are kept for the report of a shutdown."""


class RecordingError(TraplineError):
    """Records could not be written; those before are in the file."""


class Recorder:
    """The sink of a VM's records. A batch is handled whole; only lines are made one by one."""

    def __init__(
        self,
        *,
        lines: IO[str] | None = None,
        live: Callable[[str], None] | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        """`lines` gets JSON, flushed after each batch; `live` gets one line of words an exception, with its name."""
        self.tally = Tally()
        self._lines = lines
        self._live = live
        self._lookup = lookup
        self._last: deque[bytes] = deque(maxlen=BLACK_BOX)

    def add(self, data: memoryview) -> None:
        """Take a batch; the memory may be used again afterwards. Raises RecordingError on a full disk."""
        if len(data) == RECORD_SIZE and self._lines is None and self._live is None:
            record = bytes(data)  # one exception that the hypervisor decided on, while the guest waits
            self.tally.add_one(record)
            self._last.append(record)
            return
        with _uninterrupted():
            self._add(data)

    def note(self, line: str) -> None:
        """Write a line of JSON that is no record behind the records so far. Raises RecordingError on a full disk."""
        if self._lines is not None:
            with _uninterrupted():
                self._write(self._lines, (line,))

    def last(self) -> bytes:
        """Return the records of the last exceptions, at most `BLACK_BOX`, newest last."""
        return b"".join(self._last)

    def _add(self, data: memoryview) -> None:
        size = RECORD_SIZE
        if self._lines is not None:
            self._write(self._lines, json_lines(view(data), self.tally.total, self._lookup))
        self.tally.add(data)
        self._last.extend(bytes(data[-size * place :][:size]) for place in _backwards(len(data) // size))
        if self._live is not None:
            for record in view(data):
                self._live(text_line(record, self._lookup))

    def _write(self, file: IO[str], lines: Iterable[str]) -> None:
        try:
            file.writelines(lines)
            file.flush()
        except OSError as error:
            self._lines = None
            with contextlib.suppress(OSError):  # what its buffer still holds would fail once more
                file.close()
            raise RecordingError(f"{file.name}: {error.strerror}; what was recorded before is kept") from error


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let a Ctrl-C wait until a batch is in the file and in the counts as well."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    # To block the signal would not do: another thread, of numpy's for one, could take it for us.
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _backwards(count: int) -> range:
    return range(min(count, BLACK_BOX), 0, -1)
