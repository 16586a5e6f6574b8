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

    def __init__(self, words: Mapping[int, int] | None = None, below: Callable[[int], int] | None = None) -> None:
        """`below(gpa)` returns a word that is not among `words`; without it such a word raises Unknown."""
        self.words = dict(words or {})
        """The words by gpa, which is a multiple of 8."""
        self._below = below

    def forget_below(self) -> None:
        """Keep only what was read so far."""
        self._below = None

    def word(self, gpa: int) -> int:
        """Return the word at a gpa that is a multiple of 8."""
        found = self.words.get(gpa)
        if found is None:
            if self._below is None:
                raise Unknown(gpa)
            found = self.words[gpa] = self._below(gpa)
        return found

    def u64(self, gpa: int) -> int:
        """Return 64 bits."""
        shift = gpa % 8 * 8
        if not shift:
            return self.word(gpa)
        return (self.word(gpa & ~7) | self.word((gpa & ~7) + 8) << 64) >> shift & _ALL_ONES

    def u32(self, gpa: int) -> int:
        """Return 32 bits."""
        if gpa % 8 <= 4:
            return self.word(gpa & ~7) >> gpa % 8 * 8 & _LOW
        return self.u64(gpa) & _LOW

    def changed(self, stores: Iterable[tuple[int, bytes]]) -> "Words":
        """Return the same memory with bytes stored in it."""
        changed = Words(below=self.word)
        for gpa, data in stores:
            for at, byte in enumerate(data, gpa):
                shift = at % 8 * 8
                changed.words[at & ~7] = changed.word(at & ~7) & ~(0xFF << shift) | byte << shift
        return changed


def live(memory: GuestMemory) -> Words:
    """Return the words of a stopped guest; where there is no memory: all ones, as on a bus."""

    def read(gpa: int) -> int:
        try:
            return int.from_bytes(memory.read(gpa, 8), "little")
        except LookupError:
            return _ALL_ONES

    return Words(below=read)
