"""Guest-physical memory as the few words that somebody looked at, kept while they are read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from trapline.errors import TraplineError
from trapline.machine.memory import GuestMemory

_ALL_ONES: Final = (1 << 64) - 1
_LOW: Final = 0xFFFF_FFFF


class Unknown(TraplineError):
    """The evidence does not hold a word of memory."""

    def __init__(self, gpa: int) -> None:
        """Keep the address."""
        super().__init__(f"nothing is known of the memory at {gpa:#x}")


class Words:
    """Implements `arch.paging.PhysicalMemory` over aligned words of 8 bytes; what is missing is asked for below."""

    def __init__(
        self, words: Mapping[int, int | None] | None = None, below: Callable[[int], int | None] | None = None
    ) -> None:
        """`below(gpa)` returns a word that is not among `words`; without it such a word raises Unknown."""
        self.words = dict(words or {})
        """The words by gpa, which is a multiple of 8; None where there is no memory, which reads as all ones."""
        self._below = below

    def forget_below(self) -> None:
        """Keep only what was read so far."""
        self._below = None

    def get(self, gpa: int) -> int | None:
        """Return the word at a gpa that is a multiple of 8; None: there is no memory."""
        if gpa not in self.words:
            if self._below is None:
                raise Unknown(gpa)
            self.words[gpa] = self._below(gpa)
        return self.words[gpa]

    def word(self, gpa: int) -> int:
        """Return the same as the processor reads it."""
        found = self.get(gpa)
        return _ALL_ONES if found is None else found

    def u64(self, gpa: int) -> int:
        """Return 64 bits."""
        return self.word(gpa) if not gpa % 8 else self.read(gpa, 8)

    def u32(self, gpa: int) -> int:
        """Return 32 bits."""
        if gpa % 8 <= 4:
            return self.word(gpa & ~7) >> gpa % 8 * 8 & _LOW
        return self.read(gpa, 4)

    def read(self, gpa: int, size: int) -> int:
        """Return `size` bytes as an integer."""
        data = 0
        for number, at in enumerate(range(gpa & ~7, gpa + size, 8)):
            data |= self.word(at) << 64 * number
        return data >> gpa % 8 * 8 & (1 << 8 * size) - 1

    def changed(self, stores: Iterable[tuple[int, bytes]]) -> "Words":
        """Return the same memory with bytes stored in it, where there is memory."""
        changed = Words(below=self.get)
        for gpa, data in stores:
            for at, byte in enumerate(data, gpa):
                before = changed.get(at & ~7)
                if before is not None:
                    shift = at % 8 * 8
                    changed.words[at & ~7] = before & ~(0xFF << shift) | byte << shift
        return changed


def live(memory: GuestMemory) -> Words:
    """Return the words of a stopped guest."""

    def read(gpa: int) -> int | None:
        try:
            return int.from_bytes(memory.read(gpa, 8), "little")
        except LookupError:
            return None

    return Words(below=read)
