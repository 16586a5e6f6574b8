"""The guest's RAM, for the hypervisor by bytes and for the model of delivery by integers."""

import mmap
from collections.abc import Callable
from typing import Final

_ALL_ONES_32: Final = (1 << 32) - 1
_ALL_ONES_64: Final = (1 << 64) - 1


class Ram:
    """Implements `machine.GuestMemory` and `arch.paging.PhysicalMemory` over one block from address 0."""

    def __init__(self, block: mmap.mmap, written: Callable[[], None]) -> None:
        """`written` is called after somebody else than the CPU wrote: translated code may be stale."""
        self._bytes = memoryview(block)
        self.words = self._bytes.cast("Q")
        """The same in units of eight bytes."""
        self._halves = self._bytes.cast("I")
        self._written = written
        self.size = len(block)

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises LookupError where there is no memory."""
        if gpa < 0 or gpa + size > self.size:
            raise LookupError(f"no memory at {gpa:#x}")
        return bytes(self._bytes[gpa : gpa + size])

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises LookupError where there is no RAM."""
        self.store(gpa, data)
        self._written()

    def store(self, gpa: int, data: bytes) -> None:
        """Store bytes that are no code."""
        if gpa < 0 or gpa + len(data) > self.size:
            raise LookupError(f"no RAM at {gpa:#x}")
        self._bytes[gpa : gpa + len(data)] = data

    def u32(self, gpa: int) -> int:
        """Return 4 bytes; all ones where there is no memory."""
        try:
            return self._halves[gpa >> 2] if not gpa & 3 else int.from_bytes(self.read(gpa, 4), "little")
        except LookupError:
            return _ALL_ONES_32

    def u64(self, gpa: int) -> int:
        """Return 8 bytes; all ones where there is no memory."""
        try:
            return self.words[gpa >> 3] if not gpa & 7 else int.from_bytes(self.read(gpa, 8), "little")
        except LookupError:
            return _ALL_ONES_64

    def close(self) -> None:
        """Let go of the block."""
        for view in (self.words, self._halves, self._bytes):
            view.release()
