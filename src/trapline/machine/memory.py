"""The guest's physical memory, by guest-physical address (gpa)."""

from typing import Protocol


class GuestMemory(Protocol):
    """Reads and writes what the guest's CPU would see as memory."""

    @property
    def size(self) -> int:
        """How much RAM the guest has, in bytes."""

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError where there is no memory."""

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises FaultError where there is no RAM."""
