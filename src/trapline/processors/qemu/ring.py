"""Takes the monitor's records out of the ring."""

from collections.abc import Callable

from trapline.arch.layout import offset_of
from trapline.machine.record import RECORD_SIZE, Record

from .damage import Damage, good_records
from .layout import RING_RECORDS, SharedMemory


def number_records(ring: memoryview, vcpu: int) -> None:
    """Write the number of a CPU into each record of its ring, where the monitor leaves it."""
    at = offset_of(Record, "vcpu")
    for low in range(2):
        ring[at + low :: RECORD_SIZE] = bytes((vcpu >> 8 * low & 0xFF,)) * RING_RECORDS


class Ring:
    """The reading end of the ring; the monitor writes, and waits while it is full."""

    def __init__(self, shared: SharedMemory, damage: Damage) -> None:
        self._mailbox = shared.mailbox
        self._records = shared.ring
        self._damage = damage
        self._tail = 0
        self.sink: Callable[[memoryview], None] = lambda records: None
        """Gets whole records, in order."""

    def drain(self) -> int:
        """Give all new records to the sink; returns how many there were.

        Raises MonitorDamaged for what the monitor cannot have written; the sink has got the records before it.
        """
        head = self._mailbox.ring_head
        new = head - self._tail
        if not new:
            return 0
        if not 0 < new <= RING_RECORDS:
            self._damage.found("the head of its ring was written over")
        if (what := self.blocked()) is not None:
            self._damage.found(what)
        while self._tail < head:
            start = self._tail % RING_RECORDS
            count = min(head - self._tail, RING_RECORDS - start)
            # A copy: a guest that can write here does so at any time.
            block = self._records[start * RECORD_SIZE : (start + count) * RECORD_SIZE].tobytes()
            good = good_records(block)
            try:
                if good:
                    self.sink(memoryview(block)[: good * RECORD_SIZE])
            except KeyboardInterrupt:  # which waits until the sink has them (`trace.recorder`): not a second time
                self._pass(good)
                raise
            self._pass(good)
            if good < count:
                self._damage.found("a record in its ring is not one that it writes")
        return new

    def _pass(self, count: int) -> None:
        self._tail += count
        self._mailbox.ring_tail = self._tail

    def blocked(self) -> str | None:
        """Return why the monitor may wait for room without end; None: the ring is as it should be."""
        return None if self._mailbox.ring_tail == self._tail else "the tail of its ring was written over"
