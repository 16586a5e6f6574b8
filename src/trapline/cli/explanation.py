"""An explanation on a terminal: indented, wrapped, without colour."""

from typing import IO

from trapline.explain.explanation import Explanation

from .wrap import print_prose


def print_explanation(title: str, explanation: Explanation, file: IO[str]) -> None:
    """Print a title, the first exception, a line for each delivery, the ending, then causes and repair."""
    print(title, file=file)
    origin = explanation.origin
    if origin is not None:
        print_prose(str(origin), "  ", file, rest="     ")
        if origin.detail is not None:
            print_prose(origin.detail, "     ", file)
    for delivery in explanation.deliveries:
        print_prose(str(delivery), "  -> ", file)
    outcome = explanation.outcome
    ending = outcome if outcome in ("shutdown", "discarded") else f"the guest gets {outcome}"
    print_prose(ending, "  " if origin is None else "  -> ", file)
    for cause in explanation.causes:
        print_prose(f"Cause: {cause}", "", file)
    if origin is not None and explanation.repair is not None:
        repair = explanation.repair
        print_prose(f"{repair[0].upper()}{repair[1:]}, {origin.name} would have been delivered.", "", file)
    if explanation.unproven is not None:
        print_prose(f"Cause: not proven. {explanation.unproven}", "", file)
    print(file=file)
