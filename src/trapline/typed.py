"""Text that a user typed: read as a whole number with bounds, and shown in an error message of one line."""

import re
from typing import Final

from trapline.errors import UsageError

_NUMBER: Final = re.compile(r"\s*([+-]?)(?:0x([0-9a-f]+)|0b([01]+)|([0-9]+))\s*", re.ASCII | re.IGNORECASE)
_DIGITS: Final = 64
"""The longest number that is converted: of 4,300 digits Python converts none."""
_VALUE: Final = 60
"""Characters of a value that are shown."""
_MESSAGE: Final = 1000
"""Characters of a message that are shown."""


def read_integer(text: str) -> int | None:
    """Read a decimal number, a hexadecimal one as 0x40 or a binary one as 0b101; None: it is none of them, or huge."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, hexadecimal, binary, decimal = match.groups()
    digits = (hexadecimal or binary or decimal).lstrip("0") or "0"
    if len(digits) > _DIGITS:
        return None
    value = int(digits, 16 if hexadecimal else 2 if binary else 10)
    return -value if sign == "-" else value


def integer(text: str, subject: str, least: int, most: int) -> int:
    """Read a number as `read_integer` does. Raises UsageError, which begins with `subject`, for one out of bounds."""
    value = read_integer(text)
    if value is None or not least <= value <= most:
        bounds = f"{least} to {most}" if most <= 1 << 20 else f"{least:#x} to {most:#x}"
        raise UsageError(f"{subject} {shortened(text)}: a whole number from {bounds}, such as 16 or 0x10")
    return value


def shortened(text: str) -> str:
    """Return a value for a message: without the middle of a very long one."""
    return _without_middle(text, _VALUE)


def one_line(message: str) -> str:
    """Return a message on one line and not too long: line breaks and other control characters are escaped."""
    return _without_middle("".join(map(_printable, message)), _MESSAGE)


def printable(message: str) -> str:
    """Return a message of several lines with all other control characters escaped."""
    return "".join(each if each in "\n\t" else _printable(each) for each in message)


def _printable(each: str) -> str:
    return each if each.isprintable() else each.encode("unicode_escape").decode("ascii")


def _without_middle(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 3 :]}"
