"""A fault that is planted in a guest, and what may be told of it."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .handlers import STYLES
from .kernel import Kernel


class Planted(NamedTuple):
    """What happens, and what is true of it. The patterns are regular expressions, each for one clause."""

    vectors: tuple[int, ...]
    """The exceptions that the guest may be left with; none: an interrupt, or a wait for one, is what goes wrong."""
    right: tuple[str, ...]
    """One of these names what was broken."""
    facts: tuple[str, ...] = ()
    """What else is true, and does not name it."""


class Fault(NamedTuple):
    """A kind of fault."""

    name: str
    plant: Callable[[Kernel], Planted]
    """Add it to a guest; in the twin, which is not broken, the same without the fault."""
    modes: Sequence[str]
    user: bool | None
    """Whether it is code of CPL 3; None: either."""
    styles: Sequence[str]
    """How the handlers end."""


FAULTS: Final[list[Fault]] = []


def fault(
    name: str, modes: Sequence[str], *, user: bool | None = False, styles: Sequence[str] = STYLES
) -> Callable[[Callable[[Kernel], Planted]], Callable[[Kernel], Planted]]:
    """Return a decorator that lists a function as a kind of fault."""

    def add(plant: Callable[[Kernel], Planted]) -> Callable[[Kernel], Planted]:
        FAULTS.append(Fault(name, plant, modes, user, styles))
        return plant

    return add
