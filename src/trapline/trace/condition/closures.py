"""A condition as a function of one exception."""

import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any, TypeAlias

from .tree import (
    ARITHMETIC,
    COMPARISONS,
    Arithmetic,
    Both,
    Compare,
    Either,
    Field,
    Flag,
    IsIn,
    Match,
    Not,
    Number,
    Test,
    TextIn,
    Truth,
    Value,
)

ValueFunction: TypeAlias = Callable[[Any], int | None]
TestFunction: TypeAlias = Callable[[Any], bool]


def compile_test(test: Test) -> TestFunction:
    """Return a function of one exception that returns whether a test is true."""
    match test:
        case Truth(truth):
            return lambda _: truth
        case Flag(column):
            return column.of
        case Compare():
            return _comparison(test)
        case IsIn(value, members, negated):
            return _membership(compile_value(value), members, negated)
        case TextIn(column, texts, negated):
            return _membership(column.of, texts, negated)
        case Match(column, pattern):
            text, matches = column.of, re.compile(translate(pattern)).match
            return lambda exception: (found := text(exception)) is not None and matches(found) is not None
        case Not(inner):
            opposite = compile_test(inner)
            return lambda exception: not opposite(exception)
        case Both(first, second):
            one, two = compile_test(first), compile_test(second)
            return lambda exception: one(exception) and two(exception)
        case Either(first, second):
            one, two = compile_test(first), compile_test(second)
            return lambda exception: one(exception) or two(exception)


def compile_value(value: Value) -> ValueFunction:
    """Return a function of one exception that computes a value."""
    match value:
        case Number(constant):
            return lambda _: constant
        case Field(column):
            return column.of
        case Arithmetic(operator, first, second):
            apply, left, right = ARITHMETIC[operator], compile_value(first), compile_value(second)

    def compute(exception: object) -> int | None:
        one, two = left(exception), right(exception)
        return None if one is None or two is None else apply(one, two)

    return compute


def _comparison(test: Compare) -> TestFunction:
    compare, left, right = COMPARISONS[test.operator], compile_value(test.left), compile_value(test.right)
    if isinstance(test.right, Number):  # the usual one
        constant = test.right.value
        return lambda exception: (one := left(exception)) is not None and compare(one, constant)
    return lambda exception: (
        (one := left(exception)) is not None and (two := right(exception)) is not None and compare(one, two)
    )


def _membership(value: Callable[[Any], Any], members: frozenset[Any], negated: bool) -> TestFunction:
    return lambda exception: (found := value(exception)) is not None and (found in members) is not negated
