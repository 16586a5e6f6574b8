"""The guest's RAM, shared with QEMU, by guest-physical address."""

from typing import Final, Protocol

from trapline.errors import FaultError

_FOUR_GIB: Final = 1 << 32


def below_4g(machine: str, size: int) -> int:
    """Return how much of the RAM of a `pc` or `q35` machine is below 4 GiB (QEMU: pc_piix.c, pc_q35.c)."""
    if "q35" in machine:
        limit = 0x8000_0000 if size >= 0xB000_0000 else 0xB000_0000
    else:
        limit = 0xC000_0000 if size >= 0xE000_0000 else 0xE000_0000
    return min(size, limit)


class Block(Protocol):
    """The RAM as one block, sliced like bytes; offsets start with the RAM below 4 GiB."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview: ...

    def __setitem__(self, part: slice, data: bytes, /) -> None: ...


class Ram:
    """Reads and writes RAM, and reads the BIOS below 4 GiB."""

    def __init__(self, memory: Block, machine: str, bios: bytes) -> None:
        self._memory = memory
        self._low = below_4g(machine, len(memory))
        self.machine_is_q35: bool = "q35" in machine
        self._bios = bios
        self._bios_at = _FOUR_GIB - len(bios)

    @property
    def size(self) -> int:
        """How much RAM the guest has, in bytes."""
        return len(self._memory)

    @property
    def low_end(self) -> int:
        """Where the RAM below 4 GiB ends."""
        return self._low

    @property
    def end(self) -> int:
        """Where the RAM ends, by guest-physical address."""
        above = len(self._memory) - self._low
        return _FOUR_GIB + above if above else self._low

    def read(self, gpa: int, size: int) -> bytes:
        """Return `size` bytes; raises FaultError where there is no memory."""
        if gpa + size <= self._low:
            return bytes(self._memory[gpa : gpa + size])
        if self._bios_at <= gpa and gpa + size <= _FOUR_GIB:
            return self._bios[gpa - self._bios_at : gpa - self._bios_at + size]
        start = self._high(gpa, size)
        return bytes(self._memory[start : start + size])

    def write(self, gpa: int, data: bytes) -> None:
        """Store bytes; raises FaultError where there is no RAM."""
        start = gpa if gpa + len(data) <= self._low else self._high(gpa, len(data))
        self._memory[start : start + len(data)] = data

    def _high(self, gpa: int, size: int) -> int:
        start = gpa - _FOUR_GIB + self._low
        if gpa < _FOUR_GIB or start + size > len(self._memory):
            raise FaultError(gpa, "there is no memory")
        return start
