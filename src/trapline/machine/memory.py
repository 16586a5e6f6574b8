"""The guest's physical memory, by guest-physical address (gpa)."""

from typing import Protocol


class GuestMemory(Protocol):
    """Reads and writes memory as the guest's CPU does."""

    @property
    def size(self) -> int:
        """The size of the guest's RAM in bytes."""

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError where there is no memory."""

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises FaultError where there is no RAM."""
