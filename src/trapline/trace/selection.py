"""What chooses records of a stored trace: vectors, a condition, a function, a process, an interval."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from trapline.arch.bits import M64
from trapline.arch.mask import parse_some
from trapline.arch.registers import EFER
from trapline.errors import UsageError
from trapline.typed import integer, read_integer, shortened

from .column import Columnar, Numbers
from .condition import Condition
from .exceptions import Selection
from .rules import Rule
from .schema import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask: TypeAlias = NDArray[np.bool_]

_ANY_VECTOR: Final = (1 << 256) - 1
_TSC: Final = re.compile(r"\s*tsc\s*:(.*)", re.IGNORECASE | re.DOTALL)
_LOW: Final = 0xFFF
"""The bits of CR3 below the address of the table in long mode: PCID, or PWT and PCD (APM vol. 2, 5.3.2)."""
_LOW_LEGACY: Final = 0x1F
"""The same outside long mode; with PAE the table is aligned to 32 bytes (APM vol. 2, 5.2.3)."""


class Place(NamedTuple):
    """A place in a trace, of `--from` or `--to`."""

    column: str
    """`seq` or `tsc`."""
    value: int


class Interval(NamedTuple):
    """Records from a place on, or up to it (`exceptions.Selection`); a record without a value is not chosen."""

    place: Place
    upwards: bool

    @property
    def columns(self) -> frozenset[str]:
        """See `Selection`."""
        return frozenset({self.place.column})

    def mask(self, batch: Columnar) -> "Mask":
        """See `Selection`."""
        numbers: Numbers = batch.over(COLUMNS[self.place.column])
        value = min(self.place.value, M64)
        return _where(numbers.values >= value if self.upwards else numbers.values <= value, numbers)


class Process(NamedTuple):
    """Records of one address space (`exceptions.Selection`), by the table that CR3 has, without PCID and flags."""

    cr3: int

    @property
    def columns(self) -> frozenset[str]:
        """See `Selection`."""
        return frozenset({"cr3", "efer"})

    def mask(self, batch: Columnar) -> "Mask":
        """See `Selection`."""
        import numpy as np

        table = process_of(batch)
        wanted = np.where(_long_mode(batch), np.uint64(self.cr3 & ~_LOW), np.uint64(self.cr3 & ~_LOW_LEGACY))
        return _where(table.values == wanted, table)


class Choice:
    """Records that meet all of some conditions (`exceptions.Selection`)."""

    def __init__(self, selections: Sequence[Selection] = (), seen: Callable[[int], object] | None = None) -> None:
        """`seen` is called with the number of records of each batch that is looked at."""
        self._selections, self._seen = tuple(selections), seen

    @property
    def columns(self) -> frozenset[str]:
        """See `Selection`."""
        return frozenset[str]().union(*(each.columns for each in self._selections))

    def mask(self, batch: Columnar) -> "Mask":
        """See `Selection`."""
        import numpy as np

        found = np.ones(batch.size, np.bool_)
        for selection in self._selections:
            found &= selection.mask(batch)
        self.looked_at(batch.size)
        return found

    def looked_at(self, records: int) -> None:
        """Tell how many records were looked at; `mask` does so by itself."""
        if self._seen is not None:
            self._seen(records)

    def watched(self, seen: Callable[[int], object]) -> "Choice":
        """Return a choice of the same records that calls `seen`."""
        return Choice(self._selections, seen)

    @property
    def is_all(self) -> bool:
        """Whether every record is chosen."""
        return not self._selections


def process_of(batch: Columnar) -> Numbers:
    """Return the physical address of each record's page tables: CR3 without PCID and flags."""
    import numpy as np

    cr3: Numbers = batch.over(COLUMNS["cr3"])
    low = np.where(_long_mode(batch), np.uint64(_LOW), np.uint64(_LOW_LEGACY))
    return Numbers(cr3.values & ~low, cr3.present)


def read_choice(
    exceptions: str | None = None,
    where: str | None = None,
    function: str | None = None,
    process: str | None = None,
    first: str | None = None,
    last: str | None = None,
) -> Choice:
    """Read the options that choose records: `-e`, `--where`, `--function`, `--process`, `--from` and `--to`.

    Raises UsageError for the value of one that cannot be read.
    """
    selections: list[Selection] = []
    if exceptions is not None or function is not None:
        selections.append(Rule(_ANY_VECTOR if exceptions is None else parse_some(exceptions), pattern=function))
    if where is not None:
        selections.append(Condition(where))
    if process is not None:
        selections.append(Process(integer(process, "--process", 0, M64)))
    if first is not None:
        selections.append(Interval(_place("--from", first), upwards=True))
    if last is not None:
        selections.append(Interval(_place("--to", last), upwards=False))
    return Choice(selections)


def _place(option: str, text: str) -> Place:
    match = _TSC.fullmatch(text)
    value = read_integer(match[1] if match else text)
    if value is None or value < 0:
        what = "the number of a record, such as 1000, or tsc:N, a time stamp, such as tsc:0x1f00"
        raise UsageError(f"{option} {shortened(text)}: {what}")
    return Place("tsc" if match else "seq", value)


def _long_mode(batch: Columnar) -> "Mask":
    """Return where long mode is active, or unknown."""
    efer: Numbers = batch.over(COLUMNS["efer"])
    found: Mask = efer.values & EFER.LMA != 0
    return found if efer.present is None else found | ~efer.present


def _where(found: Any, numbers: Numbers) -> "Mask":  # noqa: ANN401  # numpy's
    result: Mask = found if numbers.present is None else found & numbers.present
    return result
