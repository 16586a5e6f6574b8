"""Conditions as text: Python's expressions, parsed by `ast`, taken by a white list, and never evaluated by Python."""

import ast
import tokenize
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import reduce
from textwrap import shorten
from typing import Final, NoReturn, TypeAlias

from trapline.arch.mask import NAMES
from trapline.errors import UsageError
from trapline.trace.column import Column, Kind
from trapline.trace.schema import COLUMNS

from .tokens import to_python
from .tree import (
    ARITHMETIC,
    COMPARISONS,
    WORD,
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

LONGEST: Final = 1000
"""Characters of a condition."""
DEEPEST: Final = 50
"""How deep its parts may be nested."""

_Operand: TypeAlias = Value | Test | str | Column
"""A number, a test, a constant text or a column of text."""
_SIGNS: Final[dict[type[ast.AST], str]] = {
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.Add: "+", ast.Sub: "-", ast.LShift: "<<", ast.RShift: ">>",
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip


def parse(text: str, columns: Mapping[str, Column]) -> tuple[Test, frozenset[str]]:
    """Read a condition over some columns; return it with the names of the columns that it uses.

    Raises UsageError that names what is allowed.
    """
    if len(text) > LONGEST:
        raise UsageError(f"a condition has {LONGEST} characters at most, not {len(text)}")
    if not text.strip():
        raise UsageError("a condition is empty; write one such as cpl == 0 and vector == pf")
    shown = shorten(text, 80, placeholder=" ...")
    reader = _Reader(columns)
    try:
        tree = _parsed(to_python(text)).body
        _check_depth(tree)
        return reader.test(tree), frozenset(reader.used)
    except UsageError as error:
        raise UsageError(f"condition {shown!r}: {error}") from None
    except (SyntaxError, tokenize.TokenError) as error:
        raise UsageError(f"condition {shown!r}: {error.args[0]}") from None
    except (ValueError, MemoryError, RecursionError):  # a NUL, a number of too many digits, too deep for the parser
        raise UsageError(f"condition {shown!r}: it cannot be read") from None


def _parsed(text: str) -> ast.Expression:
    """Parse an expression. Python 3.11 fails by itself where another thread parses meanwhile (CPython issue 106905)."""
    try:
        return ast.parse(text, mode="eval")
    except SystemError:
        return ast.parse(text, mode="eval")


def _check_depth(tree: ast.expr) -> None:
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise UsageError(f"it is nested more than {DEEPEST} deep")


def _refuse(node: ast.AST, why: str) -> NoReturn:
    raise UsageError(f"{shorten(ast.unparse(node), 60, placeholder=' ...')}: {why}")


def _near(word: str, names: Iterable[str]) -> str:
    close = get_close_matches(word, tuple(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


class _Reader:
    """Turns Python's tree into ours."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._columns = columns
        self.used: set[str] = set()
        """The columns that were met."""

    def test(self, node: ast.expr) -> Test:
        found = self._operand(node)
        match found:
            case Number(value):
                hint = f": perhaps vector == {node.id}" if isinstance(node, ast.Name) else ""
                _refuse(node, f"always {value}, which is not a condition{hint}")
            case Field() | Arithmetic():
                return Compare("!=", found, Number(0))
            case str() | Column():
                _refuse(node, 'text is not a condition; compare it: symbol == "main", or use has_symbol')
        return found

    def _operand(self, node: ast.expr, *, vectors: bool = False) -> _Operand:
        """`vectors`: ss is the exception, not the selector."""
        match node:
            case ast.BoolOp(op, parts):
                join: type[Both | Either] = Both if isinstance(op, ast.And) else Either
                return reduce(join, map(self.test, parts))
            case ast.UnaryOp(ast.Not(), inner):
                return Not(self.test(inner))
            case ast.UnaryOp(ast.Invert() | ast.USub() as op, inner):
                sign, base = ("^", WORD) if isinstance(op, ast.Invert) else ("-", 0)
                return _arithmetic(sign, Number(base), self._number(inner))
            case ast.BinOp(left, op, right) if type(op) in _SIGNS:
                sign, count = _SIGNS[type(op)], self._number(right)
                if sign in ("<<", ">>") and isinstance(count, Number) and count.value > 63:
                    _refuse(node, "a value has 64 bits")
                return _arithmetic(sign, self._number(left), count)
            case ast.Compare():
                return self._comparison(node)
            case ast.Call(ast.Name("match"), [column, pattern], []):
                return self._match(node, column, pattern)
            case ast.Constant(value):
                return _constant(node, value)
            case ast.Name(name):
                return self._name(name, vectors)
        _refuse(node, 'not a part of a condition; there are comparisons, and, or, not, in, & | ^ << >> + - ~, '
                'and match(symbol, "pattern")')  # fmt: skip

    def _number(self, node: ast.expr, *, vectors: bool = False) -> Value:
        found = self._operand(node, vectors=vectors)
        if not isinstance(found, Value):
            _refuse(node, "not a number")
        return found

    def _name(self, name: str, vectors: bool) -> _Operand:
        if name in (name.lower(), name.upper()) and name.lower() in NAMES and (vectors or name not in self._columns):
            return Number(NAMES[name.lower()])
        column = self._columns.get(name)
        if column is None:
            if name in COLUMNS:
                raise UsageError(f"{name} is known only after the exception was delivered")
            raise UsageError(
                f"there is no column {name}{_near(name, (*self._columns, *NAMES)) or '.'} Columns: "
                f"{', '.join(self._columns)}. Exceptions: {', '.join(NAMES)}."
            )
        self.used.add(name)
        if column.kind is Kind.TEXT:
            return column
        return Flag(column) if column.kind is Kind.TRUTH else Field(column)

    def _comparison(self, node: ast.Compare) -> Test:
        operands = [node.left, *node.comparators]
        vectors = any(isinstance(operand, ast.Name) and self._is_vector(operand.id) for operand in operands)
        tests = [
            self._membership(node, left, right, vectors, negated=isinstance(op, ast.NotIn))
            if isinstance(op, ast.In | ast.NotIn)
            else self._pair(node, left, op, right, vectors)
            for left, op, right in zip(operands, node.ops, node.comparators, strict=False)
        ]
        return reduce(Both, tests)

    def _is_vector(self, name: str) -> bool:
        return name in self._columns and self._columns[name].kind is Kind.VECTOR

    def _pair(self, node: ast.expr, left: ast.expr, op: ast.cmpop, right: ast.expr, vectors: bool) -> Test:
        if type(op) not in _SIGNS:
            _refuse(node, "there is no `is`; has_address, has_error_code and so on say whether there is a value")
        sign = _SIGNS[type(op)]
        one, two = (self._operand(each, vectors=vectors) for each in (left, right))
        if isinstance(one, str):
            one, two, sign = two, one, _MIRRORED.get(sign, sign)
        if isinstance(one, Column) and isinstance(two, str):
            if sign not in ("==", "!="):
                _refuse(node, "text has no order: there are == and !=, in, and ~ for patterns")
            return TextIn(one, frozenset((_text(node, one, two),)), negated=sign == "!=")
        if isinstance(one, Field) and isinstance(two, str):
            two = Number(_vector(node, one, two))
        if isinstance(one, Number) and isinstance(two, Number):
            return Truth(COMPARISONS[sign](one.value, two.value))
        if isinstance(one, Value) and isinstance(two, Value):
            return Compare(sign, one, two)
        _refuse(node, "two numbers can be compared, or a column of text and a constant")

    def _membership(self, node: ast.expr, left: ast.expr, right: ast.expr, vectors: bool, *, negated: bool) -> Test:
        if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
            _refuse(node, "`in` takes a list of constants: vector in (pf, gp)")
        found = self._operand(left, vectors=vectors)
        members = [self._operand(each, vectors=True) for each in right.elts]
        if isinstance(found, Column):
            texts = [_text(node, found, each) for each in members if isinstance(each, str)]
            if len(texts) == len(members):
                return TextIn(found, frozenset(texts), negated)
        elif isinstance(found, Value):
            numbers = [
                _vector(node, found, each) if isinstance(each, str) else each.value
                for each in members
                if isinstance(each, Number | str)
            ]
            if len(numbers) == len(members):
                return IsIn(found, frozenset(numbers), negated)
        _refuse(node, "`in` takes a number and constants, or a column of text and constant texts")

    def _match(self, node: ast.expr, left: ast.expr, right: ast.expr) -> Test:
        column, pattern = self._operand(left), self._operand(right)
        if not isinstance(column, Column) or not isinstance(pattern, str):
            _refuse(node, 'match takes a column of text and a pattern: match(symbol, "copy_*")')
        return Match(column, pattern)


_MIRRORED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _arithmetic(sign: str, left: Value, right: Value) -> Value:
    if isinstance(left, Number) and isinstance(right, Number):
        return Number(ARITHMETIC[sign](left.value, right.value))
    return Arithmetic(sign, left, right)


def _constant(node: ast.expr, value: object) -> _Operand:
    if isinstance(value, bool):
        return Truth(value)
    if isinstance(value, str):
        return value
    if not isinstance(value, int):
        _refuse(node, "constants are integers, texts, True and False")
    if value > WORD:
        _refuse(node, "a value has 64 bits")
    return Number(value)


def _vector(node: ast.expr, operand: Value, name: str) -> int:
    if not isinstance(operand, Field) or operand.column.kind is not Kind.VECTOR:
        _refuse(node, "a number is compared with a text")
    found = NAMES.get(name.lower().removeprefix("#"))
    if found is None:
        _refuse(node, f"{name!r} names no exception{_near(name.lower(), NAMES)}")
    return found


def _text(node: ast.expr, column: Column, text: str) -> str:
    if column.values and text not in column.values:
        _refuse(node, f"{column.name} is one of {', '.join(column.values)}")
    return text
