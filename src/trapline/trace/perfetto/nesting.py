"""Which exceptions have a length: those during which others were raised, up to where their handler has surely returned.

A record does not tell when a handler returns. A later one of the same CPU and process may prove that it has: at CPL 3,
for the kernel is left then; or at the same CPL with a stack pointer at or above the first one's on the same stack, for
a handler's frame lies below (APM vol. 2, 8.9.3). Others that were raised before may be of the handler, or of what was
called after it; so a length is an upper bound.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

STACK: Final = 1 << 14
"""Bytes of a stack: two stack pointers that far apart are not of the same one."""
_DEEPEST: Final = 64
"""How many exceptions of a CPU and process are followed."""
_USER: Final = 3


class Slice(NamedTuple):
    """An exception with a length. Records have their index in the trace."""

    start: int
    end: int
    """The record that proves its return."""


class Settled(NamedTuple):
    """What is known now, of records that were taken."""

    instants: list[int]
    """Those without a length."""
    slices: list[Slice]
    """The innermost first."""


class _Open:
    """An exception whose handler is not known to have returned."""

    __slots__ = ("inner", "place", "rsp", "user")

    def __init__(self, place: int, rsp: int, *, user: bool) -> None:
        self.place, self.rsp, self.user = place, rsp, user
        self.inner = False
        """Whether others were raised since."""


class Nesting:
    """Follows the exceptions of each CPU and process."""

    def __init__(self) -> None:
        self._open: dict[int, list[_Open]] = {}
        self._count = 0

    def add(self, contexts: Sequence[int], cpls: Sequence[int], stacks: Sequence[int]) -> Settled:
        """Take records: their CPU and process as a number, CPL and RSP."""
        instants: list[int] = []
        slices: list[Slice] = []
        for place, (context, cpl, rsp) in enumerate(zip(contexts, cpls, stacks, strict=True), self._count):
            opened = self._open.get(context)
            if opened is None:
                opened = self._open[context] = []
            user = cpl == _USER
            while opened and (user or (not opened[-1].user and 0 <= rsp - opened[-1].rsp < STACK)):
                last = opened.pop()
                if last.inner:
                    slices.append(Slice(last.place, place))
                else:
                    instants.append(last.place)
            if opened:
                opened[-1].inner = True
                if len(opened) == _DEEPEST:
                    instants.append(opened.pop(0).place)
            opened.append(_Open(place, rsp, user=user))
        self._count += len(contexts)
        return Settled(instants, slices)

    def held(self) -> list[int]:
        """Return the records of which nothing is known yet, ascending."""
        return sorted(each.place for opened in self._open.values() for each in opened)
