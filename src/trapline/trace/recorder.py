"""Takes the records of a run and passes them on: to the counts, to memory, to a file, to a terminal."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from trapline.errors import TraplineError

from .condition import Condition
from .exception_record import Lookup
from .exceptions import Exceptions
from .record_filter import RecordFilter
from .store import RecordStore
from .tally import Tally

if TYPE_CHECKING:
    from .files.output import RecordOutput

BLACK_BOX: Final = 64
"""How many of the last exceptions the report of a shutdown needs."""
_WAITING: Final = 16 << 20
"""Bytes of records that wait at most."""


class RecordingError(TraplineError):
    """Records could not be written; the file holds those before."""


class Recorder:
    """The sink of a VM's records. A batch is processed as a whole; only lines are made one by one."""

    def __init__(
        self,
        *,
        output: "RecordOutput | None" = None,
        live: Callable[[str], None] | None = None,
        lookup: Lookup | None = None,
        keep: int = BLACK_BOX,
        where: Condition | None = None,
        tally: Tally | None = None,
        hurry: Callable[[], object] = lambda: None,
        wait: Callable[[], bool] = lambda: False,
    ) -> None:
        """`output` gets each batch; `live` gets one line of text an exception, with its name.

        `hurry` is called when a Ctrl-C comes while a batch is taken, and has to wait for it.

        While `wait` answers so, batches wait for a call of `release`: `lookup` will know more then.

        Of the records themselves the newest `keep` stay in memory, `BLACK_BOX` at least.
        Records for which `where` does not hold are left out: they have no number. `tally` counts the others.
        """
        self.tally = tally or Tally()
        self.store = RecordStore(max(keep, BLACK_BOX))
        self._keep_one = self.store.add_one
        self._output = output
        self._live = live
        self._lookup = lookup
        self._uninterrupted = _Uninterrupted(hurry)
        self._wait = wait
        self._waiting = bytearray()
        self._filter = None if where is None else RecordFilter(where, lookup)

    def add(self, data: memoryview) -> None:
        """Take a batch; the memory may be used again afterwards. Raises RecordingError on a full disk."""
        with self._uninterrupted:
            if self._wait() and len(self._waiting) < _WAITING:
                self._waiting += data
            else:
                self._choose_waiting()
                self._choose(data)

    def release(self) -> None:
        """Take the records that wait. Raises RecordingError on a full disk."""
        if self._waiting:
            with self._uninterrupted:
                self._choose_waiting()

    def add_one(self, data: memoryview) -> int | None:
        """Take one record, after those that wait; return its number, from 0, or None: it is left out. See `add`."""
        if self._waiting:
            self.release()
        tally = self.tally
        if self._filter is not None and not self._filter.holds(data, tally.total):
            return None
        if self._output is None and self._live is None:
            record = bytes(data)
            tally.add_one(record)
            self._keep_one(record)
        else:
            with self._uninterrupted:
                self._store(data)
        return tally.total - 1

    def note(self, line: str) -> None:
        """Write a line of JSON that is not a record, after the records so far. Raises RecordingError on a full disk."""
        self.release()
        if self._output is not None:
            with self._uninterrupted, self._telling(self._output):
                self._output.note(line)

    def last(self) -> bytes:
        """Return the records of the last exceptions, at most `BLACK_BOX`, newest last."""
        return self.store.newest(BLACK_BOX)

    def exceptions(self) -> Exceptions:
        """Return the exceptions that are kept in memory; later ones do not appear in it."""
        return Exceptions(self.store.records(), first=self.dropped, lookup=self._lookup)

    @property
    def dropped(self) -> int:
        """How many of the oldest exceptions were dropped from memory: also the number of the first one that was not."""
        return self.tally.total - len(self.store)

    def _choose_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self._choose(memoryview(waiting))

    def _choose(self, batch: memoryview) -> None:
        if self._filter is None:
            self._store(batch)
        elif kept := self._filter.choose(batch, self.tally.total):
            self._store(memoryview(kept))

    def _store(self, batch: memoryview) -> None:
        whole = batch.obj
        data = whole if isinstance(whole, bytes) and len(whole) == len(batch) else bytes(batch)
        if self._output is not None:
            with self._telling(self._output):
                self._output.write(data, self.tally.total)
        self.tally.add(data)
        self.store.add(data)
        if self._live is not None:
            for record in Exceptions(data, lookup=self._lookup):
                self._live(str(record))

    @contextlib.contextmanager
    def _telling(self, output: "RecordOutput") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._output = None
            raise RecordingError(f"{output.name}: {error.strerror}; what was recorded before is kept") from error


class _Uninterrupted:
    """Lets a Ctrl-C wait until a batch is in the file and in the counts as well."""

    def __init__(self, hurry: Callable[[], object]) -> None:
        """`hurry` is called when one comes."""
        self._hurry = hurry
        self._before: Any = None
        self._came = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # only the main thread is ever interrupted
            # To block the signal would not do: another thread, of numpy's for one, could take it for us.
            self._before = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        before, self._before = self._before, None
        if before is not None:
            signal.signal(signal.SIGINT, before)
            if self._came:
                self._came = False
                signal.raise_signal(signal.SIGINT)

    def _note(self, number: int, frame: object) -> None:
        self._came = True
        self._hurry()
