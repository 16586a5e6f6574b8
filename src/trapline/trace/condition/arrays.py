"""A condition over many records at once, with numpy."""

import re
from collections.abc import Callable
from fnmatch import translate
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trapline.trace.column import Column, Columnar, Numbers, Texts

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

Mask: TypeAlias = NDArray[np.bool_] | np.bool_
"""One truth a record, or a single one for all."""


def select(test: Test, batch: Columnar) -> NDArray[np.bool_]:
    """Return for each record whether a test is true."""
    return np.broadcast_to(_test(test, batch), batch.size)


def _test(test: Test, batch: Columnar) -> Mask:
    match test:
        case Not(inner):
            return ~_test(inner, batch)
        case Both(first, second):
            return _test(first, batch) & _test(second, batch)
        case Either(first, second):
            return _test(first, batch) | _test(second, batch)
        case TextIn(column, texts, negated):
            return _texts(column, batch, lambda text: (text in texts) is not negated)
        case Match(column, pattern):
            matches = re.compile(translate(pattern)).match
            return _texts(column, batch, lambda text: matches(text) is not None)
    return _simple_test(test, batch)


def _simple_test(test: Truth | Flag | Compare | IsIn, batch: Columnar) -> Mask:
    match test:
        case Truth(truth):
            return np.bool_(truth)
        case Flag(column):
            flags: Mask = batch.over(column)
            return flags
        case Compare(operator, first, second):
            left, right = _value(first, batch), _value(second, batch)
            return _where(_COMPARISONS[operator](left.values, right.values), _both(left.present, right.present))
        case IsIn(value, members, negated):
            number = _value(value, batch)
            return _where(np.isin(number.values, np.array(sorted(members), np.uint64), invert=negated), number.present)


def _value(value: Value, batch: Columnar) -> Numbers:
    match value:
        case Number(constant):
            return Numbers(np.array(constant, np.uint64))
        case Field(column):
            field: Numbers = batch.over(column)
            return Numbers(field.values.astype(np.uint64), field.present)
        case Arithmetic(operator, first, second):
            left, right = _value(first, batch), _value(second, batch)
            result = _ARITHMETIC[operator](left.values, right.values)
            return Numbers(result, _both(left.present, right.present))


def _texts(column: Column, batch: Columnar, test: Callable[[str], bool]) -> Mask:
    found: Texts = batch.over(column)
    truths = np.array([text is not None and test(text) for text in found.table], np.bool_)
    return np.take(truths, found.codes)


def _both(one: NDArray[np.bool_] | None, two: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if one is None or two is None:
        return two if one is None else one
    return one & two


def _where(result: Mask, present: NDArray[np.bool_] | None) -> Mask:
    return result if present is None else result & present


def _shift_left(values: NDArray[np.uint64], count: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.where(count < 64, values << np.minimum(count, _LAST_BIT), _ZERO)


def _shift_right(values: NDArray[np.uint64], count: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return np.where(count < 64, values >> np.minimum(count, _LAST_BIT), _ZERO)


_ZERO: Final = np.uint64(0)
_LAST_BIT: Final = np.uint64(63)
_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {**COMPARISONS}
_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {**ARITHMETIC, "<<": _shift_left, ">>": _shift_right}
