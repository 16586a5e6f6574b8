"""Takes the monitor's records out of the ring."""

from collections.abc import Callable

from trapline.machine.record import RECORD_SIZE

from .layout import RING_RECORDS, SharedMemory


class Ring:
    """The reading end of the ring; the monitor writes, and waits while it is full."""

    def __init__(self, shared: SharedMemory) -> None:
        self._mailbox = shared.mailbox
        self._records = shared.ring
        self._tail = 0
        self.sink: Callable[[memoryview], None] = lambda records: None
        """Gets whole records, in order; the memory is valid during the call."""

    def drain(self) -> int:
        """Give all new records to the sink; returns how many there were."""
        head = self._mailbox.ring_head
        new = head - self._tail
        while self._tail < head:
            start = self._tail % RING_RECORDS
            count = min(head - self._tail, RING_RECORDS - start)
            self.sink(self._records[start * RECORD_SIZE : (start + count) * RECORD_SIZE])
            self._tail += count
            self._mailbox.ring_tail = self._tail
        return new
