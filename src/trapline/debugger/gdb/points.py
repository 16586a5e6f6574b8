"""Breakpoints and watchpoints as gdb sets them: packets Z and z."""

from typing import Final

from trapline.api import Machine
from trapline.errors import UsageError

from .reading import sign_extended

SOFTWARE: Final = 0
HARDWARE: Final = 1
WRITE: Final = 2
ACCESS: Final = 4
KINDS: Final = (SOFTWARE, HARDWARE, WRITE, ACCESS)
"""Types of Z packets. One that waits for reads alone (3) is not there: gdb uses ACCESS in its place."""
_ACCESSES: Final = {WRITE: "w", ACCESS: "rw"}


class Points:
    """What gdb has set. Setting one twice is setting it once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._set: set[tuple[int, int, int]] = set()

    def add(self, kind: int, address: int, size: int, narrow: bool) -> None:
        """Set a point; `narrow`: gdb has cut the address to 32 bits. Raises UsageError where that is not possible."""
        self._change(self._set | {_key(kind, address, size)}, narrow)

    def remove(self, kind: int, address: int, size: int, narrow: bool) -> None:
        """Remove a point, if it is there."""
        self._change(self._set - {_key(kind, address, size)}, narrow)

    def clear(self) -> None:
        """Remove all."""
        self._change(set(), False)

    def is_hardware(self, address: int) -> bool:
        """Return whether a breakpoint at an address was asked for as one of the hardware alone."""
        return (SOFTWARE, address, 0) not in self._set and (HARDWARE, address, 0) in self._set

    def _change(self, wanted: set[tuple[int, int, int]], narrow: bool) -> None:
        """Make the machine's points those that are wanted; where it refuses, they stay as they were."""
        breakpoints, watchpoints = self._machine.breakpoints, self._machine.watchpoints
        for kind, address, size in self._set - wanted:
            if kind in _ACCESSES:
                for each in {each for each in watchpoints if each == (address, size, kind == ACCESS)}:
                    watchpoints.remove(each)
            elif not any(other in wanted for other in ((SOFTWARE, address, 0), (HARDWARE, address, 0))):
                for place in {address, sign_extended(address)}:
                    if place in breakpoints:
                        breakpoints.remove(place)
        self._set &= wanted
        for kind, address, size in wanted - self._set:
            if kind in _ACCESSES:
                watchpoints.add(address, size, _ACCESSES[kind])
            else:
                for place in {address, sign_extended(address) if narrow else address}:
                    breakpoints.add(place)
            self._set.add((kind, address, size))


def _key(kind: int, address: int, size: int) -> tuple[int, int, int]:
    if kind not in KINDS:
        raise UsageError(f"no point has the type {kind}")
    return kind, address, size if kind in _ACCESSES else 0
