"""Many records as lines of JSON at once: the text of `jsonl.json_lines`, from whole columns.

Each member is a matrix of characters with a row for each record, filled up with NULs, which no member has: where a
hexadecimal number would have leading zeros, after a short text. The text is all of them side by side without the NULs.
"""

import json
from binascii import hexlify
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trapline.arch.events import ERROR_CODE_VALID, VALID
from trapline.arch.vectors import mnemonic
from trapline.machine.record import GENERAL

from .column import Columnar, Numbers, Texts
from .jsonl import event_text
from .schema import COLUMNS, EVENT_TYPES

Part: TypeAlias = NDArray[np.uint8]
"""Characters: of each record a row, or one row for all."""
Truths: TypeAlias = NDArray[np.bool_]

_NAMES: Final = [mnemonic(vector) for vector in range(256)]
_HEX: Final = ("cs", "rip", "ss", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6")


_AT_ONCE: Final = 1 << 12
"""Records whose characters fit in the processor's cache."""


def json_block(columns: Columnar, *, registers: bool = True) -> bytes:
    """Return a line of JSON for each record. A member is left out where its column has no value, or null is written."""
    return b"".join(
        _block(columns.part(start, _AT_ONCE), registers=registers) for start in range(0, columns.size, _AT_ONCE)
    )


def _block(columns: Columnar, *, registers: bool) -> bytes:
    block = _Block(columns)
    parts = [part for member in _MEMBERS if registers or member is not _Block.registers for part in member(block)]
    text = np.empty((columns.size, sum(part.shape[-1] for part in parts)), np.uint8)
    start = 0
    for part in parts:
        end = start + part.shape[-1]
        text[:, start:end] = part
        start = end
    return text.tobytes().translate(None, b"\0")


class _Block:
    """Makes the parts of members."""

    def __init__(self, columns: Columnar) -> None:
        self._columns = columns

    def over(self, name: str) -> Any:  # noqa: ANN401  # by the column's kind
        return self._columns.over(COLUMNS[name])

    def decimal(self, key: str, name: str) -> Iterator[Part]:
        numbers: Numbers = self.over(name)
        yield from _member(f'{key}"{name}":', _decimal(numbers.values), numbers.present)

    def hexadecimal(self, name: str) -> Iterator[Part]:
        numbers: Numbers = self.over(name)
        yield from _member(f',"{name}":"0x', _hexadecimal(numbers.values), numbers.present, '"')

    def name(self) -> Iterator[Part]:
        yield _text(',"name":"')
        yield _table(self.over("vector").values, _NAMES)
        yield _text('"')

    def error_code(self) -> Iterator[Part]:
        numbers: Numbers = self.over("error_code")
        yield _text(',"error_code":')
        yield from _or_null([_decimal(numbers.values)], numbers.present)

    def address(self) -> Iterator[Part]:
        numbers: Numbers = self.over("address")
        yield _text(',"address":')
        yield from _or_null([_text('"0x'), _hexadecimal(numbers.values), _text('"')], numbers.present)

    def event(self, name: str) -> Iterator[Part]:
        vector, kind, code = (self.over(f"{name}{end}") for end in ("", "_type", "_error_code"))
        numbers = [EVENT_TYPES.index(text) if text in EVENT_TYPES else 0 for text in kind.table]
        words = vector.values.astype(np.uint64) | np.array(numbers, np.uint64)[kind.codes] << 8
        words |= np.where(code.known(), code.values.astype(np.uint64) << 32 | ERROR_CODE_VALID, np.uint64(0))
        found, places = np.unique(np.where(vector.known(), words | VALID, np.uint64(0)), return_inverse=True)
        yield _text(f',"{name}":')
        yield _table(places, [event_text(int(word)) for word in found])

    def outcome(self) -> Iterator[Part]:
        texts: Texts = self.over("outcome")
        yield _table(texts.codes, ["" if text is None else f',"outcome":"{text}"' for text in texts.table])

    def synthesized(self) -> Iterator[Part]:
        yield _table(self.over("synthesized").astype(np.intp), [',"synthesized":false', ',"synthesized":true'])

    def registers(self) -> Iterator[Part]:
        for name in GENERAL:
            numbers: Numbers = self.over(name)
            if numbers.present is None or numbers.present.any():
                yield from self.hexadecimal(name)

    def symbol(self) -> Iterator[Part]:
        names, offsets, sources = (self.over(name) for name in ("symbol", "symbol_offset", "source"))
        if all(text is None for text in names.table):
            return
        yield _table(
            names.codes, ["" if text is None else f',"symbol":{json.dumps(text)[:-1]}' for text in names.table]
        )
        yield from _member("+0x", _hexadecimal(offsets.values), offsets.present)
        yield _table(names.codes, ["" if text is None else '"' for text in names.table])
        yield _table(sources.codes, ["" if text is None else f',"source":{json.dumps(text)}' for text in sources.table])


_MEMBERS: Final[Sequence[Callable[[_Block], Iterator[Part]]]] = (
    lambda block: block.decimal("{", "seq"),
    lambda block: block.decimal(",", "tsc"),
    lambda block: block.decimal(",", "vcpu"),
    lambda block: block.decimal(",", "vector"),
    _Block.name,
    _Block.error_code,
    _Block.address,
    lambda block: block.decimal(",", "cpl"),
    *(lambda block, name=name: block.hexadecimal(name) for name in _HEX),
    lambda block: block.event("vectoring"),
    _Block.outcome,
    lambda block: block.event("injected"),
    _Block.synthesized,
    lambda block: block.hexadecimal("cs_base"),
    _Block.registers,
    _Block.symbol,
    lambda block: iter([_text("}\n")]),
)


def _text(text: str) -> Part:
    return np.frombuffer(text.encode(), np.uint8)


def _table(codes: NDArray[np.integer[Any]], texts: Sequence[str]) -> Part:
    """Return the text of each record, by its index in a table."""
    encoded = [text.encode() for text in texts]
    width = max(map(len, encoded), default=0)
    table = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in encoded), np.uint8)
    found: Part = table.reshape(len(encoded), width)[codes]
    return found


def _hexadecimal(values: NDArray[np.integer[Any]]) -> Part:
    size = values.dtype.itemsize
    digits = hexlify(values.astype(values.dtype.newbyteorder(">")).tobytes())
    return np.frombuffer(digits, np.uint8).reshape(len(values), 2 * size) * _significant(values, 16, 2 * size)


def _decimal(values: NDArray[np.integer[Any]]) -> Part:
    left = values = values.astype(np.uint64)
    width = len(str(int(left.max()))) if len(left) else 1
    digits = np.empty((len(left), width), np.uint8)
    for place in range(width - 1, -1, -1):
        left, digits[:, place] = np.divmod(left, np.uint64(10))
    return (digits + np.uint8(ord("0"))) * _significant(values, 10, width)


def _significant(values: NDArray[np.integer[Any]], base: int, width: int) -> Truths:
    """Return which of so many digits are not leading zeros; the last one never is."""
    count, most = np.ones(len(values), np.uint8), int(values.max()) if len(values) else 0
    for power in range(1, width):
        if base**power > most:
            break
        count += values >= values.dtype.type(base**power)
    found: Truths = np.arange(width, 0, -1) <= count[:, None]
    return found


def _member(before: str, value: Part, present: Truths | None, after: str = "") -> Iterator[Part]:
    yield from _where([_text(before), value, _text(after)], present)


def _or_null(parts: Sequence[Part], present: Truths | None) -> Iterator[Part]:
    yield from _where(parts, present)
    if present is not None:
        yield from _where([_text("null")], ~present)


def _where(parts: Sequence[Part], present: Truths | None) -> Iterator[Part]:
    for part in parts:
        yield part if present is None else part * present[:, None]
