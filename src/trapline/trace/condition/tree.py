"""What a condition is made of. Values are unsigned 64-bit integers or missing; tests are true or false.

Arithmetic wraps at 64 bits. It is missing where an operand is; a test of a missing value is false.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from trapline.trace.column import Column

WORD: Final = (1 << 64) - 1
"""The largest value."""


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: int


@dataclass(frozen=True, slots=True)
class Field:
    """A column of numbers."""

    column: Column


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two values and one of `ARITHMETIC`."""

    operator: str
    left: "Value"
    right: "Value"


@dataclass(frozen=True, slots=True)
class Truth:
    """A constant."""

    value: bool


@dataclass(frozen=True, slots=True)
class Flag:
    """A column that is true or false."""

    column: Column


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values and one of `COMPARISONS`."""

    operator: str
    left: "Value"
    right: "Value"


@dataclass(frozen=True, slots=True)
class IsIn:
    """Whether a value is there and is one of some numbers; `negated`: is there and is none of them."""

    value: "Value"
    members: frozenset[int]
    negated: bool


@dataclass(frozen=True, slots=True)
class TextIn:
    """Like `IsIn`, for a column of text."""

    column: Column
    members: frozenset[str]
    negated: bool


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a column of text is there and matches a pattern of the shell, in which case counts."""

    column: Column
    pattern: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a test."""

    test: "Test"


@dataclass(frozen=True, slots=True)
class Both:
    """Whether two tests are true; the second is not tried where the first is false."""

    first: "Test"
    second: "Test"


@dataclass(frozen=True, slots=True)
class Either:
    """Whether one of two tests is true; the second is not tried where the first is."""

    first: "Test"
    second: "Test"


Value: TypeAlias = Number | Field | Arithmetic
Test: TypeAlias = Truth | Flag | Compare | IsIn | TextIn | Match | Not | Both | Either

ARITHMETIC: Final[dict[str, Callable[[int, int], int]]] = {
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "+": lambda left, right: left + right & WORD,
    "-": lambda left, right: left - right & WORD,
    "<<": lambda left, right: left << right & WORD if right < 64 else 0,
    ">>": lambda left, right: left >> right if right < 64 else 0,
}
COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
