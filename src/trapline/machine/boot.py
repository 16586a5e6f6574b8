"""What a bare machine starts with: bytes in its RAM, and a state that takes the place of the one after RESET."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea


class Boot(NamedTuple):
    """How a guest enters a machine without firmware: write `loads`, reset the vCPU, then let `enter` change it."""

    name: str
    """The protocol, as `multiboot`."""
    description: str
    """Protocol and entry for people, on one line."""
    loads: Sequence[tuple[int, bytes]]
    """(gpa, bytes) to write into RAM, also at each reset; all of it lies inside RAM, no two overlap."""
    enter: Callable[[SaveArea, Gprs], None]
    """Writes the entry state over the state after RESET."""
