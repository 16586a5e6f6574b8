"""The tokens of a condition: what Python's parser may see, with `symbol ~ "pattern"` as a call of `match`."""

import io
import keyword
import tokenize
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from trapline.errors import UsageError

_ALLOWED: Final = {
    tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.OP, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER,
}  # fmt: skip
_ONE_LINE: Final = str.maketrans("\r\n\f\v", "    ")


def to_python(text: str) -> str:
    """Return a condition as a Python expression of one line. Raises UsageError, and whatever `tokenize` raises."""
    line = text.translate(_ONE_LINE).strip()
    tokens = list(_checked(line))
    parts = []
    end = 0
    for place, token in enumerate(tokens):
        if token.string != "~" or not place or not _ends_operand(tokens[place - 1]):
            continue
        column, pattern = tokens[place - 1], tokens[place + 1]
        if column.type != tokenize.NAME or pattern.type != tokenize.STRING:
            raise UsageError('~ takes a column of text and a pattern: symbol ~ "copy_*"')
        parts += [line[end : column.start[1]], f"match({column.string}, {pattern.string})"]
        end = pattern.end[1]
    return "".join([*parts, line[end:]])


def _checked(line: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the tokens of a line; refuse those that no condition has, and those that Python warns about."""
    tokens = list(tokenize.generate_tokens(io.StringIO(line).readline))
    for token in tokens:
        if token.type == tokenize.COMMENT:
            raise UsageError("a condition has no comments; an exception is written pf, not #pf")
        if token.type not in _ALLOWED:
            raise UsageError(f"{token.string!r} is not a part of a condition")
        if token.type == tokenize.STRING and (token.string[0] not in "'\"" or "\\" in token.string):
            raise UsageError(f"{token.string}: text is written in quotes, without a prefix and without a backslash")
    for one, two in pairwise(tokens):
        if one.type == tokenize.NUMBER and two.type == tokenize.NAME and one.end == two.start:
            raise UsageError(f"{one.string}{two.string} is neither a number nor a name")
    yield from tokens


def _ends_operand(token: tokenize.TokenInfo) -> bool:
    if token.type == tokenize.NAME:
        return not keyword.iskeyword(token.string)
    return token.type in (tokenize.NUMBER, tokenize.STRING) or token.string in (")", "]", "}")
