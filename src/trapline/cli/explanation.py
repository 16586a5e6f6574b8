"""An explanation on a terminal: indented, wrapped, without colour."""

from typing import IO

from trapline.explain.explanation import Explanation

from .wrap import print_prose


def print_explanation(title: str, explanation: Explanation, file: IO[str]) -> None:
    """Print a title, what happened, a line for each event, then the cause and what would have helped."""
    print(title, file=file)
    for number, line in enumerate(explanation.lines):
        print_prose(line, "  -> " if number else "  ", file)
    print_prose(explanation.ending, "  -> " if explanation.lines else "  ", file)
    for cause in explanation.causes:
        print_prose(f"Cause: {cause}", "", file)
    if explanation.repair is not None:
        print_prose(f"It would have been delivered {explanation.repair}.", "", file)
    if explanation.known is not None:
        print_prose(f"Cause: not proven. {explanation.known}", "", file)
    print(file=file)
