"""A story on a terminal: indented, wrapped, without colour."""

import shutil
import textwrap
from typing import IO, Final

from trapline.explain.story import Story

_NARROWEST: Final = 60
_WIDEST: Final = 120


def print_story(title: str, story: Story, file: IO[str]) -> None:
    """Print a title, what happened, a line for each event, then the cause and what would have helped."""
    width = min(max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST), _WIDEST)
    print(title, file=file)
    for number, line in enumerate(story.lines):
        _print(line, "  -> " if number else "  ", width, file)
    _print(story.ending, "  -> " if story.lines else "  ", width, file)
    for cause in story.causes:
        _print(f"Cause: {cause}", "", width, file)
    if story.repair is not None:
        _print(f"It would have been delivered {story.repair}.", "", width, file)
    if story.known is not None:
        _print(f"Cause: not proven. {story.known}", "", width, file)
    print(file=file)


def _print(text: str, start: str, width: int, file: IO[str]) -> None:
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * (len(start) or 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    print("\n".join(lines), file=file)
