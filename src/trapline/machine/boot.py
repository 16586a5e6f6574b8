"""How a guest starts without firmware: the content of RAM, and the state of the vCPU."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea


class Boot(NamedTuple):
    """How a guest starts without firmware: write `loads`, reset the vCPU, then let `enter` change its state."""

    name: str
    """The protocol, as `multiboot`."""
    description: str
    """Protocol and entry as text, on one line."""
    loads: Sequence[tuple[int, bytes]]
    """(gpa, bytes) to write into RAM, also at each reset; all are inside RAM and none overlap."""
    enter: Callable[[SaveArea, Gprs], None]
    """Writes the entry state over the state after RESET."""
