"""Rules for CI: which exceptions must never happen, and which must.

    RULE    [user:|kernel:|any:]VECTORS[@SYMBOL-PATTERN]      kernel:gp,ud@copy_*   pf   user:pf@main*
    EXPECT  RULE[=COUNT]                                      pf   kernel:pf@copy_*=3   ud=0

VECTORS are the names that `--exceptions` takes. The pattern is one of the shell, over the function of the instruction.
In an expectation a pattern that itself ends in = and a number needs a count.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from fnmatch import translate
from functools import cache
from typing import TYPE_CHECKING, Final, Protocol

from trapline.arch.mask import format_mask, parse_some
from trapline.arch.vectors import FORCEABLE, bits, mnemonic
from trapline.errors import UsageError
from trapline.symbols import Symbol

from .column import Columnar, Numbers, Texts
from .schema import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_USER_CPL: Final = 3


class Privilege(Enum):
    """Whose exceptions a rule is about, by the CPL at which they were raised."""

    ANY = "any"
    KERNEL = "kernel"
    """CPL 0 to 2."""
    USER = "user"
    """CPL 3."""


class Named(Protocol):
    """What a rule asks of an exception: an ExceptionRecord has it, and so has one that is not delivered yet."""

    @property
    def vector(self) -> int:
        """Which exception."""

    @property
    def cpl(self) -> int:
        """The privilege level at which it was raised."""

    @property
    def symbol(self) -> Symbol | None:
        """The name of the instruction's address."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Some exceptions. `str()` is what `parse_rule` reads."""

    vectors: int
    """A bit for each."""
    privilege: Privilege = Privilege.ANY
    pattern: str | None = None
    """What the function's name must match; None: any instruction, with a name or without."""

    def matches(self, record: Named) -> bool:
        """Return whether the rule is about an exception. One without a symbol matches no pattern."""
        if not self.vectors >> record.vector & 1:
            return False
        if self.privilege is not Privilege.ANY and (record.cpl == _USER_CPL) is not (self.privilege is Privilege.USER):
            return False
        if self.pattern is None:
            return True
        return record.symbol is not None and _compiled(self.pattern).match(record.symbol.name) is not None

    def count(self, records: Iterable[Named]) -> int:
        """Return how many of some exceptions the rule is about."""
        return sum(map(self.matches, records))

    @property
    def columns(self) -> frozenset[str]:
        """The columns that `mask` uses."""
        names = ("vector", self.privilege is Privilege.ANY or "cpl", self.pattern is None or "symbol")
        return frozenset(name for name in names if isinstance(name, str))

    def mask(self, batch: Columnar) -> "NDArray[np.bool_]":
        """Return for each record of a batch whether the rule is about it. Loads numpy."""
        import numpy as np

        vectors: Numbers = batch.over(COLUMNS["vector"])
        found: NDArray[np.bool_] = np.array([self.vectors >> vector & 1 for vector in range(256)], bool)[vectors.values]
        if self.privilege is not Privilege.ANY:
            cpl: Numbers = batch.over(COLUMNS["cpl"])
            found &= (cpl.values == _USER_CPL) == (self.privilege is Privilege.USER)
            found &= True if cpl.present is None else cpl.present
        if self.pattern is not None:
            names: Texts = batch.over(COLUMNS["symbol"])
            codes, table = names
            matches = _compiled(self.pattern).match
            found &= np.array([name is not None and matches(name) is not None for name in table], bool)[codes]
        return found

    def __str__(self) -> str:
        privilege = "" if self.privilege is Privilege.ANY else f"{self.privilege.value}:"
        return f"{privilege}{format_mask(self.vectors)}" + ("" if self.pattern is None else f"@{self.pattern}")


@dataclass(frozen=True, slots=True)
class Expectation:
    """Exceptions that must happen. `str()` is what `parse_expectation` reads."""

    rule: Rule
    count: int | None = None
    """Exactly so many times; None: at least once."""

    def met_by(self, count: int) -> bool:
        """Return whether so many exceptions are as expected."""
        return count > 0 if self.count is None else count == self.count

    def met_between(self, least: int, most: int) -> bool | None:
        """Return the same for a count between `least` and `most`; None: it depends on the count."""
        if self.count is None:
            return True if least else None if most else False
        if not least <= self.count <= most:
            return False
        return True if least == most else None

    @property
    def wanted(self) -> str:
        """The count as text."""
        return "at least 1" if self.count is None else f"{self.count:,}"

    def describe(self, count: int) -> str:
        """Return in a sentence what was expected and how many exceptions there were."""
        return f"expected {self.wanted} of {self.rule}, got {count:,}"

    def __str__(self) -> str:
        return str(self.rule) if self.count is None else f"{self.rule}={self.count}"


def parse_rule(text: str) -> Rule:
    """Read a rule. Raises UsageError in a sentence for what is not one."""
    subject, at, pattern = text.strip().partition("@")
    privilege, colon, vectors = subject.rpartition(":")
    try:
        return Rule(
            parse_some(vectors),
            _privilege(privilege.strip().lower()) if colon else Privilege.ANY,
            _pattern(pattern) if at else None,
        )
    except UsageError as error:
        raise UsageError(f"rule {text!r}: {error}") from None


def parse_expectation(text: str) -> Expectation:
    """Read an expectation. Raises UsageError in a sentence for what is not one."""
    rule, equals, count = text.strip().rpartition("=")
    if not equals or ("@" in rule and not _is_count(count)):  # operator== is a name
        return Expectation(parse_rule(text))
    if not _is_count(count):
        raise UsageError(f"{text!r}: a whole number follows =, such as pf=3, not {count!r}")
    return Expectation(parse_rule(rule), int(count))


def unforced(vectors: int, forced: int) -> int:
    """Return those vectors of a rule that are not forced: a rule about them would never be violated, nor kept.

    A rule about all is about those that are forced.
    """
    if vectors == FORCEABLE:
        return 0 if forced else FORCEABLE
    return vectors & ~forced


def check_forced(rule: str, vectors: int, forced: int) -> None:
    """Raise UsageError for a rule that names exceptions which are not forced. `rule` begins the message."""
    missing = unforced(vectors, forced)
    if not missing:
        return
    names = [mnemonic(vector) for vector in bits(missing)]
    what = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not forced" if forced else "nothing is forced"
    raise UsageError(f"{rule}: {what}; add {format_mask(missing)} to --exceptions")


def _is_count(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text.strip(), re.ASCII) is not None


def _privilege(text: str) -> Privilege:
    names = [privilege.value for privilege in Privilege]
    if text in names:
        return Privilege(text)
    close = get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"{text!r} is written before the colon; there are {', '.join(names)}{hint}")


def _pattern(text: str) -> str:
    if not text.strip():
        raise UsageError("a pattern for the function's name follows @, such as copy_*")
    return text.strip()


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))
