"""What a column of recorded exceptions is, and its values over many records."""

from collections.abc import Callable, Sequence
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trapline.arch.bits import M32
from trapline.symbols import Symbol

from .exception_record import Lookup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .columns import Records


class Kind(Enum):
    """The type of a column's values."""

    NUMBER = "number"
    """An unsigned integer of at most 64 bits."""
    VECTOR = "vector"
    """A number that has a name where it is an exception's: pf is 14."""
    TEXT = "text"
    TRUTH = "true or false"


class Columnar(Protocol):
    """Many exceptions by columns: `Batch`, or what a file has of them."""

    @property
    def size(self) -> int:
        """How many exceptions there are."""

    def over(self, column: "Column", /) -> Any:  # noqa: ANN401  # by the column's kind
        """Return an array of a column; see `Column.over`."""

    def part(self, start: int, count: int, /) -> "Columnar":
        """Return some of them, `count` at most."""


class Batch:
    """Many records: what an array of a column is made from."""

    def __init__(self, records: "Records", numbers: "NDArray[np.uint64]", lookup: Lookup | None = None) -> None:
        """`numbers` are their sequence numbers."""
        self.records, self.numbers, self.lookup = records, numbers, lookup

    @property
    def size(self) -> int:
        """How many records there are."""
        return len(self.records)

    def over(self, column: "Column", /) -> Any:  # noqa: ANN401  # by the column's kind
        """Return an array of a column; see `Column.over`."""
        return column.over(self)

    def part(self, start: int, count: int, /) -> "Batch":
        """Return some of them, `count` at most."""
        end = start + count
        return Batch(self.records[start:end], self.numbers[start:end], self.lookup)

    @cached_property
    def symbols(self) -> "tuple[NDArray[np.integer[Any]], list[Symbol | None]]":
        """Indices into a table of symbols, and the table: of each record's instruction."""
        import numpy as np

        if self.lookup is None:
            return np.zeros(self.size, np.intp), [None]
        addresses, places = np.unique(linear_addresses(self).values, return_inverse=True)
        lookup = self.lookup
        codes: dict[Symbol | None, int] = {}
        found = [codes.setdefault(lookup(address), len(codes)) for address in addresses.tolist()]
        return np.array(found, np.intp)[places], list(codes)


class Numbers(NamedTuple):
    """An array of a column of numbers."""

    values: "NDArray[np.integer[Any]]"
    present: "NDArray[np.bool_] | None" = None
    """Where there is a value; None: everywhere."""

    def known(self) -> "NDArray[np.bool_]":
        """Return where there is a value."""
        import numpy as np

        return np.ones(len(self.values), np.bool_) if self.present is None else self.present


class Texts(NamedTuple):
    """An array of a column of text: indices into a table; None in the table is a missing value."""

    codes: "NDArray[np.integer[Any]]"
    table: Sequence[str | None]


class Column(NamedTuple):
    """One column. A missing value is None."""

    name: str
    kind: Kind
    description: str
    of: Callable[[Any], Any]
    """Of one exception: an int, a str, a bool or None."""
    over: Callable[[Batch], Any]
    """Of many: by `kind` Numbers, Texts or an array of bool."""
    values: tuple[str, ...] = ()
    """All texts that there are; empty: any."""
    decided: bool = False
    """Known only after the delivery of the exception."""


def linear_addresses(batch: Batch) -> Numbers:
    """Return the linear address of each record's instruction."""
    return Numbers(linear(batch.records["rip"], batch.records["cs_base"]))


def linear(rip: "NDArray[Any]", cs_base: "NDArray[Any]") -> "NDArray[Any]":
    """Return linear addresses, as `exception_record.linear_rip` does."""
    import numpy as np

    return np.where(rip >> 32 != 0, rip, rip + cs_base & M32)
