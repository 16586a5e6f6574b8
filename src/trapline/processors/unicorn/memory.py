"""The guest's RAM, for the hypervisor by bytes and for the model of delivery by integers."""

import mmap
from collections.abc import Callable

from trapline.arch.bits import M32, M64
from trapline.arch.paging import PAGE, PAGE_OFFSET, PAGE_SHIFT
from trapline.errors import FaultError


class Ram:
    """Implements `machine.GuestMemory` and `arch.paging.PhysicalMemory` over one block from address 0."""

    def __init__(self, block: mmap.mmap, forget: Callable[[], None]) -> None:
        """`forget` is called after a write by anything but the CPU to code that the CPU has translated."""
        self._block = block
        self._bytes = memoryview(block)
        self.words = self._bytes.cast("Q")
        """RAM in units of eight bytes."""
        self._halves = self._bytes.cast("I")
        self._forget = forget
        self._code: dict[int, int] = {}
        """The bytes of a page that were translated, as bits."""
        self.size = self._end = len(block)

    def close(self) -> None:
        """Release the block: from now on there is no memory."""
        self._end = 0
        for view in (self.words, self._halves, self._bytes):
            view.release()
        self._block.close()

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError where there is no memory."""
        if gpa < 0 or gpa + size > self._end:
            raise FaultError(gpa, "there is no memory")
        return bytes(self._bytes[gpa : gpa + size])

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises FaultError where there is no RAM."""
        size = len(data)
        if gpa < 0 or gpa + size > self._end:
            raise FaultError(gpa, "there is no RAM")
        self._bytes[gpa : gpa + size] = data
        code, offset = self._code, gpa & PAGE_OFFSET
        if (gpa >> PAGE_SHIFT in code or offset + size > PAGE) and self._holds_code(gpa, size):
            code.clear()
            self._forget()

    def note_code(self, gpa: int, size: int) -> None:
        """Remember that code at `gpa`, all in one page, was translated."""
        page = gpa >> PAGE_SHIFT
        self._code[page] = self._code.get(page, 0) | (1 << size) - 1 << (gpa & PAGE_OFFSET)

    def _holds_code(self, gpa: int, size: int) -> bool:
        """Return whether one of the bytes was translated."""
        code = self._code
        while True:
            here = min(size, PAGE - (gpa & PAGE_OFFSET))
            if code.get(gpa >> PAGE_SHIFT, 0) >> (gpa & PAGE_OFFSET) & (1 << here) - 1:
                return True
            if here == size:
                return False
            gpa, size = gpa + here, size - here

    def u32(self, gpa: int) -> int:
        """Return 4 bytes; all ones where there is no memory."""
        try:
            return self._halves[gpa >> 2] if not gpa & 3 else int.from_bytes(self.read(gpa, 4), "little")
        except (IndexError, FaultError):
            return M32

    def u64(self, gpa: int) -> int:
        """Return 8 bytes; all ones where there is no memory."""
        try:
            return self.words[gpa >> 3] if not gpa & 7 else int.from_bytes(self.read(gpa, 8), "little")
        except (IndexError, FaultError):
            return M64
