"""A stored trace: metadata, columns and evidence, whatever the format of its file."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from trapline.errors import UsageError
from trapline.trace.condition import Condition
from trapline.trace.exceptions import Selection
from trapline.trace.libraries import need_pyarrow
from trapline.trace.schema import COLUMNS
from trapline.trace.stored import Metadata, StoredEvidence
from trapline.typed import one_line

from .writer import Note

if TYPE_CHECKING:
    import pyarrow as pa

    from .layout import StoredColumns


class Found(NamedTuple):
    """A piece of evidence."""

    place: str
    """Where it is in the file, for a message: `line 12`."""
    evidence: StoredEvidence
    """Its members: see docs/trace-format.md."""


class Piece(NamedTuple):
    """Records with the evidence among them: what `Writer.write` takes."""

    columns: "StoredColumns"
    notes: Sequence[Note]


class Source(Protocol):
    """An open file of one format. What is damaged raises UsageError, or one of pyarrow's errors."""

    @property
    def metadata(self) -> Metadata:
        """What it says of its run."""

    @property
    def count(self) -> int | None:
        """How many records it has; None: only a reading tells."""

    def batches(self, names: Sequence[str], first: int) -> "Iterator[pa.RecordBatch]":
        """Yield these columns of `layout.STORED`, as far as it has them; a record without any has its `seq`.

        Records with a `seq` below `first` may be left out.
        """

    def evidence(self, outcomes: set[str]) -> Iterator[Found]:
        """Yield all evidence in the order in which it was noted, and collect what became of the records."""

    def pieces(self) -> Iterator[Piece]:
        """Yield all that the file has, piece by piece."""

    def close(self) -> None:
        """Close it."""


class Trace:
    """A stored trace, opened by `open_trace`. Close it, or use it as a context manager.

    Each reading begins at the start; of a pipe there is one. Memory is bounded by a batch, whatever the file's size.
    """

    def __init__(self, name: str, source: Source) -> None:
        self.name: str = name
        """The file."""
        self._source = source

    @property
    def metadata(self) -> Metadata:
        """What the file says of its run."""
        return self._source.metadata

    @property
    def count(self) -> int | None:
        """How many records it has; None: only a reading tells."""
        return self._source.count

    def batches(
        self, columns: Iterable[str] | None = None, where: str | Selection | None = None, *, first: int = 0
    ) -> "Iterator[pa.RecordBatch]":
        """Yield some columns of the records, in order, up to 65,536 records at a time; None: all columns.

        The columns are those of conditions (docs/conditions.md); a missing value is null, text is a dictionary. `where`
        chooses records: a condition as text or `Condition`, or a `Rule`. Only what is needed is read: records with a
        `seq` below `first` may be left out.

        Raises UsageError for a column that there is not, and for a damaged file; MissingExtra without pyarrow.
        """
        names = tuple(COLUMNS if columns is None else columns)
        unknown = [name for name in names if name not in COLUMNS]
        if unknown:
            raise UsageError(f"there is no column {unknown[0]}. Columns: {', '.join(COLUMNS)}.")
        return self._batches(names, Condition(where) if isinstance(where, str) else where, first)

    def evidence(self, outcomes: set[str] | None = None) -> Iterator[Found]:
        """Yield what `trapline explain` works on, in the order in which it was noted. Raises UsageError.

        `outcomes` gets what became of the records: the values of the column `outcome`.
        """
        with blaming(self.name):
            yield from self._source.evidence(set() if outcomes is None else outcomes)

    def pieces(self, where: Selection | None = None) -> Iterator[Piece]:
        """Yield all that the file has but for its metadata, as writers take it. Raises UsageError and MissingExtra.

        `where` chooses records; all evidence is there, between those that are left.
        """
        need_pyarrow()
        with blaming(self.name):
            for piece in self._source.pieces():
                yield piece if where is None else _chosen(piece, where)

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batches(self, names: Sequence[str], where: Selection | None, first: int) -> "Iterator[pa.RecordBatch]":
        need_pyarrow()
        import pyarrow as pa

        from .layout import StoredColumns, needed

        stored = needed([*names, *(() if where is None else where.columns)])
        with blaming(self.name):
            for batch in self._source.batches(stored, first):
                chosen = batch if where is None else batch.filter(pa.array(where.mask(StoredColumns(batch))))
                if chosen.num_rows:
                    found = StoredColumns(chosen)
                    yield pa.record_batch([found.array(name) for name in names], list(names))


def _chosen(piece: Piece, where: Selection) -> Piece:
    chosen = where.mask(piece.columns)
    notes = [note._replace(place=int(chosen[: note.place].sum())) for note in piece.notes]
    return Piece(piece.columns.chosen(chosen), notes)


@contextlib.contextmanager
def blaming(name: str) -> Iterator[None]:
    """Raise UsageError with the name of a file for what is wrong with it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    except (OSError, ValueError, MemoryError, LookupError, NotImplementedError, OverflowError) as error:
        told = getattr(error, "strerror", None) or one_line(f"it is damaged: {error}")
        raise UsageError(f"{name}: {told}") from error
