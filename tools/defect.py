"""A known defect: a text of the source, and what is written in its place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect: `new` replaces `old`. A letter distinguishes the paths that can have it."""

    number: str
    name: str
    file: str
    old: str
    new: str
    no_guest_can_tell: str = ""
    """Why a whole guest sees nothing of it."""
    tests: tuple[str, ...] = ()
    """Arguments of pytest: tests that should notice it, and run before all others."""
