"""Folds text into lines of a given width."""

import textwrap
from typing import Final, NamedTuple


class Width(NamedTuple):
    """The widths at which text is folded, in characters."""

    prose: int = 100
    """Sentences."""
    lines: int | None = None
    """Lines of data; None: they are not folded, for programs that read them."""


PLAIN: Final = Width()
"""For text that does not go to a terminal."""


def fold(text: str, start: str, width: int, rest: str | None = None) -> list[str]:
    """Return a text after `start` as lines; the second and later ones begin with `rest`, else with spaces."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * (len(start) or 2) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fold_line(text: str, start: str, width: Width) -> list[str]:
    """Return a line of data after `start`, folded where lines are."""
    return [f"{start}{text}"] if width.lines is None else fold(text, start, width.lines, start + "    ")
