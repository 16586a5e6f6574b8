"""Chosen exceptions in memory, of a run that is not over: questions are asked of them as of a stored trace."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Self

from .exceptions import Exceptions
from .selection import Choice

if TYPE_CHECKING:
    import pyarrow as pa


class InMemory:
    """What a `reading.Reading` has of a trace."""

    def __init__(self, exceptions: Exceptions, choice: Choice, last: int | None = None) -> None:
        """`last`: only the newest that are chosen, so many."""
        chosen = exceptions if choice.is_all else exceptions.where(choice)
        self._chosen = chosen if last is None else chosen[-last:]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._chosen)

    def watch(self, seen: Callable[[int], object]) -> None:
        """Call the function once: the records are looked at when they are chosen."""
        seen(self.count)

    def batches(self, columns: Iterable[str], *, first: int = 0) -> "Iterator[pa.RecordBatch]":
        """Yield some columns of the records, in order. Raises MissingExtra without pyarrow."""
        yield from self._chosen.to_arrow().select(list(columns)).to_batches()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
