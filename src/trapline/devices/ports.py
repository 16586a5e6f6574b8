"""The I/O port bus: which device answers which port.

An access that is wider than the device's registers is split into halves, low port first, as the ISA bus does. A port
without a device reads all-ones and ignores writes.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from .hints import Hints, port_hint

Reader: TypeAlias = Callable[[int, int], int]
"""Port and size in bytes to the value; only the low `size` bytes of it count."""
Writer: TypeAlias = Callable[[int, int, int], None]
"""Port, size in bytes and value."""

PCI_ADDRESS: Final = 0xCF8
"""A doubleword here is for the PCI bus alone; in it, at port 0xCF9, the chip set has its reset register."""
_PCI_ACCESS: Final = (PCI_ADDRESS, 4)


class Claim(NamedTuple):
    """A range of ports that belongs to a device."""

    end: int
    """The first port after the range."""
    width: int
    """The widest access in bytes that the device takes as one."""
    read: Reader
    write: Writer


class PortBus:
    """Ports 0 to 0xFFFF; an access beyond the last one wraps to port 0."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        self._claims: dict[int, Claim] = {}
        self._noted: set[int] = set()

    def claim(self, first: int, count: int, read: Reader, write: Writer, *, width: int = 1) -> None:
        """Give `count` ports from `first` to a device; each port belongs to one device."""
        claim = Claim(first + count, width, read, write)
        for port in range(first, first + count):
            if port in self._claims:
                raise ValueError(f"port {port:#x} is taken")
            self._claims[port] = claim

    def read(self, port: int, size: int) -> int:
        """Read 1, 2 or 4 bytes."""
        claim = self._claims.get(port)
        if claim is not None and size <= claim.width and port + size <= claim.end:
            return claim.read(port, size) & ((1 << 8 * size) - 1)
        if size == 1 or (port, size) == _PCI_ACCESS:
            self._note(port)
            return (1 << 8 * size) - 1
        half = size >> 1
        low = self.read(port, half)
        return low | self.read(port + half & 0xFFFF, half) << 8 * half

    def write(self, port: int, size: int, value: int) -> None:
        """Write the low 1, 2 or 4 bytes of `value`."""
        claim = self._claims.get(port)
        if claim is not None and size <= claim.width and port + size <= claim.end:
            claim.write(port, size, value & ((1 << 8 * size) - 1))
        elif size == 1 or (port, size) == _PCI_ACCESS:
            self._note(port)
        else:
            half = size >> 1
            self.write(port, half, value)
            self.write(port + half & 0xFFFF, half, value >> 8 * half)

    def _note(self, port: int) -> None:
        if port not in self._noted:
            self._noted.add(port)
            name = port_hint(port)
            if name is not None:
                self._hints.note(name, f"port {port:#x}")
