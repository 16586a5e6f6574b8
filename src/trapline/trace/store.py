"""The newest records of a run in memory, up to a bound."""

from collections import deque
from collections.abc import Callable
from itertools import chain
from typing import Final

from trapline.machine.record import RECORD_SIZE


class RecordStore:
    """Keeps the newest records. Read it in the thread that adds to it, or while nothing is added."""

    def __init__(self, keep: int) -> None:
        """Keep the newest `keep` records; of a batch that reaches beyond them the rest stays in memory as well."""
        if keep < 1:
            raise ValueError(f"a store keeps one record or more, not {keep}")
        self.keep: Final = keep
        self._pieces: deque[bytes] = deque()
        self._held = 0  # records in the pieces
        self._singles: deque[bytes] = deque(maxlen=keep)  # newer than the pieces
        self.add_one: Callable[[bytes], None] = self._singles.append
        """Add one record: what is done for each exception while the guest waits."""

    def __len__(self) -> int:
        return min(self.keep, self._held + len(self._singles))

    def add(self, data: memoryview | bytes) -> None:
        """Copy a batch of whole records."""
        self._join_singles()
        self._append(bytes(data))

    def records(self) -> bytes:
        """Return the records that are kept, oldest first. Asking again costs nothing while none is added."""
        data = self.newest(self.keep)
        self._singles.clear()
        self._pieces.clear()
        self._held = 0
        self._append(data)
        return data

    def newest(self, count: int) -> bytes:
        """Return some of the newest records, oldest first: fewer than `count` where fewer are kept."""
        room = min(count, self.keep) * RECORD_SIZE
        parts = deque[bytes]()
        for piece in chain(reversed(self._singles), reversed(self._pieces)):
            if room <= 0:
                break
            parts.appendleft(piece[max(len(piece) - room, 0) :])
            room -= len(piece)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _join_singles(self) -> None:
        if self._singles:
            data = b"".join(self._singles)
            self._singles.clear()
            self._append(data)

    def _append(self, data: bytes) -> None:
        count = len(data) // RECORD_SIZE
        if not count:
            return
        self._pieces.append(data)
        self._held += count
        while self._held - (oldest := len(self._pieces[0]) // RECORD_SIZE) >= self.keep:
            self._pieces.popleft()
            self._held -= oldest
