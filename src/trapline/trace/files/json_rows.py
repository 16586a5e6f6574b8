"""Lines of JSON as rows, many at once: objects with the members that are wanted.

A row checks less than `stored.StoredRecord`: a number in hexadecimal is any text, for `json_columns` checks a whole
column of them. A block with other lines, or with damaged ones, is read line by line.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, get_args

from msgspec import DecodeError, defstruct
from msgspec.json import Decoder, encode
from msgspec.structs import fields

from trapline.trace.stored import LONGEST, Hex, Metadata, StoredEvidence, StoredRecord, read_stored

_BLOCK: Final = 3 << 14
"""Bytes that are read at once: their rows fit in a processor's second cache."""
_LINES: Final = 1 << 6
"""As many, about."""
_ALWAYS: Final = ("seq", "vector", "name")
"""What each record has."""


class Block(NamedTuple):
    """Whole lines; the last of a file may be cut off."""

    before: int
    """Lines before them."""
    lines: int
    text: bytes


class Noted(NamedTuple):
    """Evidence among rows."""

    place: int
    """Rows before it."""
    line: int
    """The number of its line."""
    evidence: StoredEvidence


class Rows(NamedTuple):
    """What a block has."""

    rows: list[Any]
    """Records: objects with the members that were asked for; None: a record lacks it."""
    noted: list[Noted]


def read_blocks(file: io.BufferedReader) -> Iterator[Block]:
    """Yield a file's lines."""
    before, rest = 0, b""
    while len(rest) <= LONGEST and (data := file.read1(_BLOCK)):
        rest += data
        end = rest.rfind(b"\n") + 1
        if end:
            text, rest = rest[:end], rest[end:]
            lines = text.count(b"\n")
            yield Block(before, lines, text)
            before += lines
    if rest:
        yield Block(before, 1, rest)


def joined(lines: Iterable[str]) -> Iterator[Block]:
    """Yield lines that were made just now."""
    lines, before = iter(lines), 0
    while some := list(islice(lines, _LINES)):
        yield Block(before, len(some), "".join(some).encode())
        before += len(some)


class RowReader:
    """Reads rows with some members."""

    def __init__(self, members: Sequence[str]) -> None:
        """`members`: of `StoredRecord`."""
        known = [field for field in fields(StoredRecord) if field.name in members or field.name in _ALWAYS]
        row = defstruct(
            "Row",
            [
                *((field.name, field.type) for field in known if field.name in _ALWAYS),
                *((field.name, _type(field.type), None) for field in known if field.name not in _ALWAYS),
                ("type", None, None),
            ],
            gc=False,
        )
        self._decoder = Decoder(row)
        self.members: Final = row.__struct_fields__
        """Of a row, in their order."""

    def read(self, block: Block) -> Rows:
        """Return what a block has but for lines of other types. Raises UsageError where it is damaged."""
        if block.text.endswith(b"\n"):
            try:
                rows = self._decoder.decode_lines(block.text)
            except (DecodeError, UnicodeDecodeError, RecursionError):
                pass
            else:
                if len(rows) == block.lines:
                    return Rows(rows, [])
        return self._line_by_line(block)

    def _line_by_line(self, block: Block) -> Rows:
        found = Rows([], [])
        for number, line in read_stored(io.BytesIO(block.text), block.before):
            if isinstance(line, StoredEvidence):
                found.noted.append(Noted(len(found.rows), number, line))
            elif not isinstance(line, Metadata):
                found.rows.append(self._decoder.decode(encode(line)))
        return found


def _type(type_: Any) -> Any:  # noqa: ANN401  # types have many classes
    """Return the type of a member of a row, where a StoredRecord's is given."""
    members = get_args(type_)
    return str | None if Hex in members else type_ | None
