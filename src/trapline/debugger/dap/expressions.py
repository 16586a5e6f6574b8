"""Expressions over registers, symbols and memory, as a user types them: `rsp + 8`, `dword [kmain + 4]`, `$eax`.

The syntax is that of Python's expressions, with NASM's brackets for memory. Numbers are unsigned, arithmetic and
addresses have 64 bits, a register or a number alone up to 128.
"""

import ast
import operator
import re
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from trapline.arch.bits import M64
from trapline.errors import UsageError
from trapline.typed import shortened

LONGEST: Final = 1000
"""Characters of an expression."""
SIZES: Final = {"byte": 1, "word": 2, "dword": 4, "qword": 8}
_SIGIL: Final = re.compile(r"\$(?=[A-Za-z_])|\bptr\b")
_OPERATORS: Final[dict[type[ast.AST], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: lambda value, by: value << by if by < 64 else 0,
    ast.RShift: lambda value, by: value >> by if by < 64 else 0,
}
_UNARY: Final[dict[type[ast.AST], Callable[[int], int]]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_COMPARED: Final[dict[type[ast.AST], Callable[[int, int], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_WIDEST: Final = (1 << 128) - 1
_NUMBER: Final = re.compile(r"0x[0-9a-f]{1,32}|[0-9]{1,39}", re.ASCII | re.IGNORECASE)
_ACCEPTED: Final = (
    "an expression has numbers, registers, symbols, + - * & | ^ ~ << >>, == < and or not, dword [rsp + 8]"
)


class Value(NamedTuple):
    """What an expression is."""

    number: int
    size: int = 8
    """In bytes."""
    address: int | None = None
    """Of memory: its linear address; None: it is not memory."""
    register: str | None = None
    """Of a register alone: its name."""
    is_symbol: bool = False
    """Whether the number is the address of a symbol, or near it."""


class Place(Protocol):
    """Where names are looked up."""

    def register(self, name: str) -> int | None:
        """Return the value of a register; None: it is not a register."""

    def symbol(self, name: str) -> int | None:
        """Return the address of a symbol; None: unknown."""

    def read(self, address: int, size: int) -> bytes:
        """Return memory at a linear address; raises FaultError."""

    @property
    def width(self) -> int:
        """The size of the code in bytes: 2, 4 or 8."""


def evaluate(text: str, place: Place) -> Value:
    """Return the value of an expression. Raises UsageError, and FaultError for memory that is not mapped."""
    if len(text) > LONGEST:
        raise UsageError(f"an expression has up to {LONGEST:,} characters")
    whole = text.strip().removeprefix("$")
    if not _NUMBER.fullmatch(whole) and place.register(whole) is None:
        at = place.symbol(whole)  # names of C++, Rust and NASM are not Python's
        if at is not None:
            return Value(at, is_symbol=True)
    try:
        tree = ast.parse(_SIGIL.sub("", text).strip(), mode="eval")
        return _Reader(place).read(tree.body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UsageError(f"{shortened(text)}: {_ACCEPTED}") from None


def read_address(text: str, place: Place) -> int:
    """Return the number that an expression gives, for a place in memory. Raises as `evaluate`."""
    value = evaluate(text, place)
    return value.address if value.address is not None else value.number & M64


class _Reader:
    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=number) if type(number) is int and number <= _WIDEST:
                return Value(number)
            case ast.Name(id=name):
                return self._name(name)
            case ast.List(elts=[address]):
                return self._memory(address, self._place.width)
            case ast.Subscript(value=ast.Name(id=size), slice=address) if size.lower() in SIZES:
                return self._memory(address, SIZES[size.lower()])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                one, other = self.read(left), self.read(right)
                number = _OPERATORS[type(op)](one.number, other.number) & M64
                return Value(number, is_symbol=one.is_symbol or other.is_symbol)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return Value(_UNARY[type(op)](self.read(operand).number) & M64)
        return Value(int(self._truth(node)))

    def _truth(self, node: ast.expr) -> bool:
        match node:
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARED for op in ops):
                numbers = [self.read(each).number for each in (left, *others)]
                pairs = zip(ops, numbers, numbers[1:], strict=False)
                return all(_COMPARED[type(op)](one, other) for op, one, other in pairs)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self.read(each).number for each in values)
            case ast.BoolOp(values=values):
                return any(self.read(each).number for each in values)
        raise UsageError(f"{shortened(ast.unparse(node))}: {_ACCEPTED}")

    def _name(self, name: str) -> Value:
        number = self._place.register(name)
        if number is not None:
            return Value(number, register=name.lower())
        address = self._place.symbol(name)
        if address is None:
            raise UsageError(f"{shortened(name)}: neither a register nor a symbol")
        return Value(address, is_symbol=True)

    def _memory(self, node: ast.expr, size: int) -> Value:
        address = self.read(node).number & M64
        return Value(int.from_bytes(self._place.read(address, size), "little"), size, address)
