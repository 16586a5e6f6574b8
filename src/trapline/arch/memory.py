"""Guest-physical memory, as page walks and the model of delivery read it."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from trapline.errors import FaultError

Reader: TypeAlias = Callable[[int, int], bytes]
"""`read(gpa, size)`: bytes of guest-physical memory; raises FaultError where there is no memory."""


class PhysicalMemory(Protocol):
    """Guest-physical memory, at any address, aligned or not. Where there is no memory: all ones, as on a bus."""

    def u32(self, gpa: int, /) -> int:
        """Return 32 bits."""

    def u64(self, gpa: int, /) -> int:
        """Return 64 bits."""


class ReaderMemory:
    """Implements `PhysicalMemory` over a reader, whose FaultError passes through: see `open_bus`."""

    def __init__(self, read: Reader) -> None:
        self._read = read

    def u32(self, gpa: int) -> int:
        """Return 32 bits."""
        return int.from_bytes(self._read(gpa, 4), "little")

    def u64(self, gpa: int) -> int:
        """Return 64 bits."""
        return int.from_bytes(self._read(gpa, 8), "little")


class Overlay:
    """Implements `PhysicalMemory`: a memory with stores on top that do not reach it."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._bytes: dict[int, int] = {}

    def store(self, writes: Iterable[tuple[int, bytes]]) -> None:
        """Store bytes, given as (gpa, bytes)."""
        for gpa, data in writes:
            self._bytes.update(enumerate(data, gpa))

    def u32(self, gpa: int) -> int:
        """Return 32 bits."""
        return self._patched(gpa, self._memory.u32(gpa), 4)

    def u64(self, gpa: int) -> int:
        """Return 64 bits."""
        return self._patched(gpa, self._memory.u64(gpa), 8)

    def _patched(self, gpa: int, value: int, size: int) -> int:
        for offset in range(size):
            byte = self._bytes.get(gpa + offset)
            if byte is not None:
                value = value & ~(0xFF << 8 * offset) | byte << 8 * offset
        return value


def open_bus(read: Reader) -> Reader:
    """Return a reader that gives all ones where `read` raises FaultError."""

    def read_all(gpa: int, size: int) -> bytes:
        try:
            return read(gpa, size)
        except FaultError:
            return b"\xff" * size

    return read_all
