"""A story on a terminal: indented, wrapped, without colour."""

from typing import IO

from trapline.explain.story import Story

from .wrap import print_prose


def print_story(title: str, story: Story, file: IO[str]) -> None:
    """Print a title, what happened, a line for each event, then the cause and what would have helped."""
    print(title, file=file)
    for number, line in enumerate(story.lines):
        print_prose(line, "  -> " if number else "  ", file)
    print_prose(story.ending, "  -> " if story.lines else "  ", file)
    for cause in story.causes:
        print_prose(f"Cause: {cause}", "", file)
    if story.repair is not None:
        print_prose(f"It would have been delivered {story.repair}.", "", file)
    if story.known is not None:
        print_prose(f"Cause: not proven. {story.known}", "", file)
    print(file=file)
