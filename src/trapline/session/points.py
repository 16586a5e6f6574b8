"""The breakpoints and watchpoints of a machine, by address or symbol."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from trapline.errors import TraplineError, UsageError
from trapline.machine.processor import Watchpoint

Resolve = Callable[[int | str], int]
"""Returns the linear address of a place; raises UsageError for an unknown name."""

LARGEST: Final = 1 << 20
"""The most bytes of a watchpoint: processors have a table of its pages."""
ACCESSES: Final = {"w": False, "rw": True}
"""What a watchpoint waits for: writes, or reads as well."""


class Breakpoints:
    """The linear addresses of the instructions before which the guest stops. The guest cannot find out.

    Iterating gives the addresses; `in` and `len` work.
    """

    def __init__(self, resolve: Resolve, changed: Callable[[frozenset[int]], None]) -> None:
        self._resolve, self._changed = resolve, changed
        self._addresses: frozenset[int] = frozenset()
        self._temporary: tuple[int, ...] = ()

    def add(self, place: int | str) -> int:
        """Stop before the instruction at an address or at the start of a function; return the address."""
        address = self._resolve(place)
        self._set(self._addresses | {address})
        return address

    def remove(self, place: int | str) -> None:
        """Remove a breakpoint; KeyError where there is none."""
        address = self._resolve(place)
        if address not in self._addresses:
            raise KeyError(place)
        self._set(self._addresses - {address})

    def clear(self) -> None:
        """Remove all."""
        self._set(frozenset())

    @contextlib.contextmanager
    def temporary(self, place: int | str) -> Iterator[int]:
        """Stop there too, to the end of a `with` statement, which gets the address. It is not one of those set."""
        address = self._resolve(place)
        self._changed(self._addresses.union(self._temporary, (address,)))
        before, self._temporary = self._temporary, (*self._temporary, address)
        try:
            yield address
        finally:
            self._temporary = before
            with contextlib.suppress(TraplineError):  # the guest is gone
                self._set(self._addresses)

    def _set(self, addresses: frozenset[int]) -> None:
        self._changed(addresses.union(self._temporary))
        self._addresses = addresses

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._addresses))

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, place: int | str) -> bool:
        return self._resolve(place) in self._addresses


class Watchpoints:
    """Memory after whose access the guest stops, on the next instruction. The guest cannot find out.

    Iterating gives each Watchpoint.
    """

    def __init__(self, resolve: Resolve, changed: Callable[[tuple[Watchpoint, ...]], None]) -> None:
        self._resolve, self._changed = resolve, changed
        self._watched: tuple[Watchpoint, ...] = ()

    def add(self, place: int | str, size: int = 8, access: str = "w") -> Watchpoint:
        """Watch `size` bytes from an address or a symbol on, for `w`rites or for any access (`rw`).

        Raises UsageError where the processor cannot watch that much.
        """
        if access not in ACCESSES:
            raise UsageError(f"a watchpoint waits for 'w' or 'rw', not for {access!r}")
        if not 1 <= size <= LARGEST:
            raise UsageError(f"a watchpoint has 1 to {LARGEST:,} bytes, not {size}")
        watchpoint = Watchpoint(self._resolve(place), size, ACCESSES[access])
        self._set((*self._watched, watchpoint))
        return watchpoint

    def remove(self, watchpoint: Watchpoint) -> None:
        """Remove a watchpoint; KeyError where it is not set."""
        if watchpoint not in self._watched:
            raise KeyError(watchpoint)
        self._set(tuple(other for other in self._watched if other != watchpoint))

    def clear(self) -> None:
        """Remove all."""
        self._set(())

    def _set(self, watched: tuple[Watchpoint, ...]) -> None:
        self._changed(watched)
        self._watched = watched

    def __iter__(self) -> Iterator[Watchpoint]:
        return iter(self._watched)

    def __len__(self) -> int:
        return len(self._watched)
