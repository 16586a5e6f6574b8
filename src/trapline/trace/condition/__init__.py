"""Conditions: one small language for filters, stops and rules.

    cpl == 0 and vector == pf and not address < 0x1000
    vector in (gp, ss) and error_code & 0xFFFC == 0x28 and symbol ~ "copy_*"

The syntax is that of Python's expressions over the columns of a record (`trapline.trace.schema`). Numbers are unsigned
and have 64 bits; arithmetic wraps. A comparison with a missing value, such as the address of a #GP, is false, with !=
and `not in` too; `not` of it is true. `ss` is the selector of the stack, but the exception where it is compared with a
vector or is in a list.
"""

import re
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from trapline.arch.mask import parse_some
from trapline.arch.vectors import FORCEABLE
from trapline.errors import UsageError
from trapline.trace.column import Columnar
from trapline.trace.schema import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LIVE: Final = {name: column for name, column in COLUMNS.items() if not column.decided}
_IF: Final = re.compile(r"(?:^|\s)if(?:\s|$)")
_COMPARES: Final = re.compile("[=<>~]")


class Condition:
    """A condition on one exception, or on the records of many."""

    def __init__(self, text: str, *, live: bool = False) -> None:
        """Read a condition. `live`: it is about exceptions that were not delivered yet, which have no outcome.

        Raises UsageError for what is not a condition; the message names what is known.
        """
        # Loaded where a condition is written: most runs have none, and the parser takes as long as all of the rest.
        from .closures import compile_test
        from .syntax import parse

        self.text: Final = text
        """The condition as it was given."""
        self._test, self.columns = parse(text, _LIVE if live else COLUMNS)
        """The names of the columns that are used."""
        self._matches: Final = compile_test(self._test)

    def matches(self, exception: object) -> bool:
        """Return whether an exception meets the condition.

        It has the attributes of `ExceptionRecord`, as far as `columns` need them. AttributeError where it lacks one.
        """
        return self._matches(exception)

    def mask(self, batch: Columnar) -> "NDArray[np.bool_]":
        """Return for each record of a batch whether it meets the condition. Loads numpy."""
        from .arrays import select

        return select(self._test, batch)

    def __repr__(self) -> str:
        return f"Condition({self.text!r})"

    def __str__(self) -> str:
        return self.text


class StopAt(NamedTuple):
    """Exceptions at which a run is to end."""

    text: str
    """As it was given."""
    vectors: int
    """A bit for each."""
    condition: Condition | None
    """What must hold as well; None: nothing."""

    def matches(self, exception: "OfVector") -> bool:
        """Return whether it is about an exception that was not delivered yet."""
        if not self.vectors >> exception.vector & 1:
            return False
        return self.condition is None or self.condition.matches(exception)


class OfVector(Protocol):
    """An exception; it has the other attributes of an ExceptionRecord too, as far as a condition needs them."""

    @property
    def vector(self) -> int:
        """Which exception."""


def parse_stop(text: str) -> StopAt:
    """Read `[VECTORS] [if CONDITION]`, such as `pf,gp if cpl == 0`; the condition is a live one.

    Without vectors before the `if` all are meant that can be forced. Raises UsageError for either part.
    """
    vectors, *conditions = _IF.split(text, maxsplit=1)
    if conditions and not conditions[0].strip():
        raise UsageError(f"stop {text!r}: a condition follows `if`: pf if cpl == 0")
    condition = Condition(conditions[0], live=True) if conditions else None
    if condition is not None and not vectors.strip():
        return StopAt(text, FORCEABLE, condition)
    if _COMPARES.search(vectors):
        raise UsageError(f"stop {text!r}: a condition follows `if`: if {vectors.strip()}")
    try:
        return StopAt(text, parse_some(vectors), condition)
    except UsageError as error:
        raise UsageError(f"stop {text!r}: {error}") from None
