"""Chosen records of a trace, of several, or of all in folders: what questions are asked of."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from trapline.errors import UsageError

from .files import Trace, open_trace
from .selection import Choice
from .stored import Metadata

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES: Final = (".parquet", ".arrow", ".jsonl", ".jsonl.zst")
"""How the names of the traces in a folder end."""
RUN: Final = "run"
"""The column that tells the trace of a record: its name, or its path in the folder."""


class Run(NamedTuple):
    """A trace of several."""

    name: str
    """What tells it from the others."""
    path: str


def find_runs(paths: Iterable[str]) -> list[Run]:
    """Return the traces that are named, and those in the folders that are, in their order.

    Raises UsageError for a folder without traces.
    """
    found: list[Run] = []
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112  # pathlib raises for a name that is too long
            found.append(Run(path, path))
            continue
        inside = sorted(
            os.path.join(folder, name)  # noqa: PTH118  # 10 times as fast for thousands
            for folder, _, names in os.walk(path)
            for name in names
            if name.endswith(SUFFIXES)
        )
        if not inside:
            raise UsageError(f"{path}: the folder has no trace: no file that ends with {', '.join(SUFFIXES)}")
        found += [Run(os.path.relpath(each, path), each) for each in inside]
    return found


class Reading:
    """The chosen records of traces. Close it, or use it as a context manager."""

    def __init__(self, paths: Sequence[str], choice: Choice | None = None, last: int | None = None) -> None:
        """`last`: of each trace only the newest that are chosen, so many. Raises UsageError and MissingExtra."""
        self.runs: Final = find_runs(paths)
        """Where they come from."""
        self._choice, self._last = choice or Choice(), last
        self._first = open_trace(self.runs[0].path)

    @property
    def metadata(self) -> Metadata:
        """What the first trace says of its run."""
        return self._first.metadata

    @property
    def count(self) -> int | None:
        """How many records there are before any choice; None: only a reading tells."""
        return self._first.count if len(self.runs) == 1 else None

    def watch(self, seen: Callable[[int], object]) -> None:
        """Let later readings call a function with the number of records that were looked at since the last call."""
        self._choice = self._choice.watched(seen)

    def batches(self, columns: Iterable[str], *, first: int = 0) -> "Iterator[pa.RecordBatch]":
        """Yield some columns of the chosen records, in order, as `Trace.batches` does; `run` is a column, too.

        Records with a `seq` below `first` may be left out.

        Raises UsageError for a damaged file and for a column that there is not, MissingExtra without pyarrow.
        """
        names = tuple(columns)
        where = None if self._choice.is_all else self._choice
        own = tuple(name for name in names if name != RUN)
        for run in self.runs:
            with self._opened(run) as trace:
                batches = trace.batches(own or ("seq",), where, first=first)
                if where is None:
                    batches = self._told(batches)
                for batch in batches if self._last is None else _newest(batches, self._last):
                    yield batch if names == own else _with_run(batch, names, run.name)

    def _told(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        for batch in batches:
            self._choice.looked_at(batch.num_rows)
            yield batch

    @contextlib.contextmanager
    def _opened(self, run: Run) -> Iterator[Trace]:
        if run is self.runs[0]:
            yield self._first
            return
        with open_trace(run.path) as trace:
            yield trace

    def close(self) -> None:
        """Close the files."""
        self._first.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _newest(batches: "Iterable[pa.RecordBatch]", count: int) -> "Iterator[pa.RecordBatch]":
    """Yield the last records."""
    held = deque["pa.RecordBatch"]()
    total = 0
    for batch in batches:
        held.append(batch)
        total += batch.num_rows
        while total - held[0].num_rows >= count:
            total -= held.popleft().num_rows
    for batch in held:
        extra = max(total - count, 0)
        total -= extra
        if extra < batch.num_rows:
            yield batch.slice(extra)


def _with_run(batch: "pa.RecordBatch", names: Sequence[str], run: str) -> "pa.RecordBatch":
    import pyarrow as pa

    codes = pa.array([0] * batch.num_rows, pa.int32())
    column = pa.DictionaryArray.from_arrays(codes, pa.array([run], pa.string()))
    return pa.record_batch([column if name == RUN else batch.column(name) for name in names], list(names))
