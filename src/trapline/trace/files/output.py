"""Where a run's records go while it runs: lines as they come, or batches that a thread makes for a writer."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, Final, Protocol

from trapline.machine.record import RECORD_SIZE
from trapline.trace.exception_record import Lookup
from trapline.trace.exceptions import Exceptions
from trapline.trace.jsonl import json_lines
from trapline.trace.stored import Metadata, run_line

from .writer import Note, Writer

_BLOCK: Final = 1 << 14
"""Records of a batch, if so many come within a second."""
_WAITING: Final = 4 * _BLOCK * RECORD_SIZE
"""Bytes of records that may wait for the thread; then the guest waits."""
_EVERY: Final = 0.8
"""Seconds between two flushes."""


class RecordOutput(Protocol):
    """What a `Recorder` writes to. Methods raise OSError where the file cannot be written."""

    @property
    def name(self) -> str:
        """The file, for messages."""

    def begin(self, metadata: Metadata) -> None:
        """Begin the file, once the processor has started."""

    def write(self, data: bytes, first: int) -> None:
        """Take whole records, the first of which has this number."""

    def note(self, line: str) -> None:
        """Take a line of evidence, which comes after the records so far."""

    def close(self) -> None:
        """Complete the file, if it was begun."""


class LineOutput:
    """Writes JSON lines to a file of text, each batch at once."""

    def __init__(self, file: IO[str], lookup: Lookup | None = None) -> None:
        self.name: str = getattr(file, "name", "output")
        self._file, self._lookup = file, lookup
        self._registers = True

    def begin(self, metadata: Metadata) -> None:
        """See `RecordOutput`."""
        self._registers = metadata.registers
        self._file.write(run_line(metadata).decode())  # not flushed: who reads it may come later than the guest runs

    def write(self, data: bytes, first: int) -> None:
        """See `RecordOutput`."""
        self._write(json_lines(data, first, self._lookup, registers=self._registers))

    def note(self, line: str) -> None:
        """See `RecordOutput`."""
        self._write((line,))

    def close(self) -> None:
        """See `RecordOutput`."""

    def _write(self, lines: Iterable[str]) -> None:
        try:
            self._file.writelines(lines)
            self._file.flush()
        except OSError:
            with contextlib.suppress(OSError):  # what its buffer still holds would fail once more
                self._file.close()
            raise


class BatchOutput:
    """Lets a thread write batches, so that the guest need not wait for them to be compressed."""

    def __init__(self, name: str, make: Callable[[], Writer], lookup: Lookup | None = None) -> None:
        """`make` is called by the thread: libraries are loaded while the guest begins to run."""
        self.name = name
        self._make, self._lookup = make, lookup
        self._changed = threading.Condition()
        self._records: list[bytes] = []
        self._notes: list[Note] = []
        self._size = self._first = 0  # bytes that wait, and the number of their first record
        self.failed = False
        """The file is not complete: an error was raised, or will be by the next call."""
        self._error: Exception | None = None
        self._ends = False
        self._thread: threading.Thread | None = None

    def begin(self, metadata: Metadata) -> None:
        """See `RecordOutput`."""
        self._thread = threading.Thread(target=self._work, args=(metadata,), name="trapline trace", daemon=True)
        self._thread.start()

    def write(self, data: bytes, first: int) -> None:
        """See `RecordOutput`."""
        with self._changed:
            self._check()
            if not self._records:
                self._first = first
            self._records.append(data)
            self._size += len(data)
            if self._size >= _BLOCK * RECORD_SIZE:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._size < _WAITING or self.failed)

    def note(self, line: str) -> None:
        """See `RecordOutput`."""
        with self._changed:
            self._check()
            self._notes.append(Note(self._waiting(), line))

    def close(self) -> None:
        """See `RecordOutput`."""
        if self._thread is None:
            return
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None
        self._check()

    def _waiting(self) -> int:
        return self._size // RECORD_SIZE

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self, metadata: Metadata) -> None:
        with contextlib.ExitStack() as undo:
            try:
                writer = self._make()
                undo.callback(writer.abandon)
                writer.begin(metadata)
                writer.flush()
                self._write_all(writer)
                undo.pop_all()
            except Exception as error:  # noqa: BLE001  # the thread that records raises it
                with self._changed:
                    self._error, self.failed = error, True
                    self._changed.notify_all()

    def _write_all(self, writer: Writer) -> None:
        last, ends = time.monotonic(), False
        while not ends:
            with self._changed:
                self._changed.wait_for(lambda: self._ends or self._size >= _BLOCK * RECORD_SIZE, _EVERY)
                ends, data, notes, first = self._ends, self._records, self._notes, self._first
                self._records, self._notes, self._size = [], [], 0
                self._changed.notify_all()
            if data or notes:
                writer.write(Exceptions(b"".join(data), first=first, lookup=self._lookup).batch(), notes)
            if time.monotonic() >= last + _EVERY:
                writer.flush()
                last = time.monotonic()
        writer.close()
