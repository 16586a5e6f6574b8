"""Guest-physical memory as the 64-bit values that were read from it, kept as part of the evidence."""

from collections.abc import Callable, Iterable, Mapping

from trapline.arch.bits import M32, M64
from trapline.arch.paging import PAGE
from trapline.errors import FaultError, TraplineError
from trapline.machine.memory import GuestMemory


class MissingMemory(TraplineError):
    """The evidence does not include the memory at an address."""

    def __init__(self, gpa: int) -> None:
        """Keep the gpa."""
        super().__init__(f"the evidence does not include the memory at {gpa:#x}")
        self.gpa = gpa


class PartialMemory:
    """Implements `arch.memory.PhysicalMemory` over aligned 64-bit values; others are read from a source on demand."""

    def __init__(
        self, qwords: Mapping[int, int | None] | None = None, source: Callable[[int], int | None] | None = None
    ) -> None:
        """`source(gpa)` returns a value that is not among `qwords`; without it such a read raises MissingMemory."""
        self.qwords = dict(qwords or {})
        """The values by gpa, a multiple of 8; None where there is no memory, which reads as all ones."""
        self._source = source

    def detach(self) -> None:
        """Keep what was read so far, and read no more."""
        self._source = None

    def qword(self, gpa: int) -> int | None:
        """Return the value at a gpa that is a multiple of 8; None: there is no memory. Raises MissingMemory."""
        if gpa not in self.qwords:
            if self._source is None:
                raise MissingMemory(gpa)
            self.qwords[gpa] = self._source(gpa)
        return self.qwords[gpa]

    def u64(self, gpa: int) -> int:
        """Return 64 bits, all ones where there is no memory."""
        return self._aligned(gpa) if not gpa % 8 else self.read(gpa, 8)

    def u32(self, gpa: int) -> int:
        """Return 32 bits, all ones where there is no memory."""
        if gpa % 8 <= 4:
            return self._aligned(gpa & ~7) >> gpa % 8 * 8 & M32
        return self.read(gpa, 4)

    def read(self, gpa: int, size: int) -> int:
        """Return `size` bytes as an integer, all ones where there is no memory."""
        data = 0
        for number, at in enumerate(range(gpa & ~7, gpa + size, 8)):
            data |= self._aligned(at) << 64 * number
        return data >> gpa % 8 * 8 & (1 << 8 * size) - 1

    def changed(self, stores: Iterable[tuple[int, bytes]]) -> "PartialMemory":
        """Return this memory with bytes stored in it, where there is memory."""
        changed = PartialMemory(source=self.qword)
        for gpa, data in stores:
            for at, byte in enumerate(data, gpa):
                before = changed.qword(at & ~7)
                if before is not None:
                    shift = at % 8 * 8
                    changed.qwords[at & ~7] = before & ~(0xFF << shift) | byte << shift
        return changed

    def _aligned(self, gpa: int) -> int:
        value = self.qword(gpa)
        return M64 if value is None else value


def partial_memory(memory: GuestMemory) -> PartialMemory:
    """Return the memory of a stopped guest, read on demand, page by page."""
    pages: dict[int, bytes] = {}

    def read(gpa: int) -> int | None:
        number, at = divmod(gpa, PAGE)
        if number not in pages:
            pages[number] = _read(memory, number * PAGE, PAGE) or b""
        data = pages[number][at : at + 8] or _read(memory, gpa, 8)  # memory may end in a page
        return None if data is None else int.from_bytes(data, "little")

    return PartialMemory(source=read)


def _read(memory: GuestMemory, gpa: int, size: int) -> bytes | None:
    try:
        return memory.read(gpa, size)
    except FaultError:
        return None
