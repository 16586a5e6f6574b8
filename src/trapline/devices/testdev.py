"""The test device of kvm-unit-tests, as QEMU's pc-testdev: interrupt lines to pull, a register and memory to play with.

Writing a page's address to its flush port does nothing: no mapping of this machine is stale.
"""

from collections.abc import Callable, Sequence
from typing import Final

REGISTER: Final = 0xE0
"""QEMU has it at 0xE8 again, where this machine has its debug console."""
FLUSH: Final = 0xE4
LINES: Final = 0x2000
MEMORY: Final = 0xFF000000
MEMORY_SIZE: Final = 0x10000


class TestDevice:
    """A register of 32 bits, 64 KiB of memory and the sixteen ISA interrupts."""

    __test__ = False  # to pytest: no test of ours

    def __init__(self, lines: Sequence[Callable[[bool], None]]) -> None:
        """`lines` are the IRQs by number."""
        self._lines = lines
        self.reset()

    def reset(self) -> None:
        """Clear everything and let go of the lines."""
        self._register = 0
        self._memory = bytearray(MEMORY_SIZE)

    def read(self, port: int, size: int) -> int:
        """Read the register, or part of it; the other ports read 0."""
        return self._register >> 8 * (port & 3) if port & ~3 == REGISTER else 0

    def write(self, port: int, size: int, value: int) -> None:
        """Write the register, or part of it; other ports take nothing."""
        if port & ~3 == REGISTER:
            shift = 8 * (port & 3)
            self._register = self._register & ~((1 << 8 * size) - 1 << shift) | value << shift

    def pull(self, port: int, size: int, value: int) -> None:
        """Drive an interrupt line."""
        self._lines[port - LINES](value != 0)

    def mmio_read(self, offset: int, size: int) -> int:
        """Read the memory."""
        return int.from_bytes(self._memory[offset : offset + size], "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write the memory."""
        end = min(offset + size, MEMORY_SIZE)
        self._memory[offset:end] = value.to_bytes(size, "little")[: end - offset]
