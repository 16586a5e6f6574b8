"""A delivery of the chain that is drawn."""

from typing import Final, NamedTuple

from trapline.arch.delivery import Delivered, Failed, checks
from trapline.explain.attempt import Attempt
from trapline.explain.failures import failure
from trapline.explain.memory import MissingMemory

from .values import State, recorded

STACK: Final = (*(checks.STACK_RPL, checks.STACK_LIMIT, checks.STACK_DPL, checks.STACK_TYPE, checks.STACK_PRESENT),)
"""Checks of the segment that the TSS names for a stack."""


class Drawn(NamedTuple):
    """A delivery: the event with the state that it met, and what the model does."""

    attempt: Attempt
    outcome: Delivered | Failed

    @property
    def failed(self) -> Failed | None:
        """The check that failed; None: the event was delivered."""
        return self.outcome if isinstance(self.outcome, Failed) else None

    @property
    def event(self) -> str:
        """What is delivered, as #PF."""
        return str(self.attempt.event._replace(error_code=None))

    @property
    def selector(self) -> int:
        """The gate's selector, or that of the stack if it was wrong; 0 where it is not recorded."""
        if self.failed is not None and self.failed.check in STACK:
            return self.failed.details["selector"]
        return recorded(lambda: self.attempt.selector) or 0

    def wrong(self) -> str:
        """Return what was wrong, as a clause; empty if nothing was."""
        failed = self.failed
        if failed is None:
            return ""
        return recorded(lambda: failure(self.attempt, failed)) or failed.check.text


def read_entry(attempt: Attempt, gva: int, size: int) -> int | State:
    """Return `size` bytes as an integer, or why it cannot: UNREADABLE or UNKNOWN."""
    try:
        found = attempt.read(gva, size)
    except MissingMemory:
        return State.UNKNOWN
    return State.UNREADABLE if found is None else found
