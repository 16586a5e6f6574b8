"""Exceptions that the processor records and re-injects without an exit, as the hypervisor permits."""

from collections.abc import Callable
from typing import Final

from trapline.arch.events import ERROR_CODE_VALID
from trapline.arch.registers import Gprs
from trapline.arch.vectors import SOFTWARE_EXCEPTIONS
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import RECORD_SIZE, RecordFlags, RecordWriter

from .clock import Clock
from .cpu import Cpu, exception_word
from .stops import Next

_RECORDS: Final = 64
"""How many are kept before the sink gets them."""


class Forwarding:
    """Forwards exceptions. Records wait until `flush`, at most `_RECORDS` of them."""

    def __init__(self, vmcb: Vmcb, gprs: Gprs, cpu: Cpu, number: int, clock: Clock) -> None:
        """`number` is the CPU's; the time stamp counter goes by `clock`."""
        self._save = vmcb.save
        self._cpu = cpu
        self._now, self._started = clock.now, clock.started
        self._writer = RecordWriter(vmcb, gprs, number)
        self._buffer = memoryview(bytearray(_RECORDS * RECORD_SIZE))
        self.waits = 0
        """Bytes of records that wait."""
        self._sink: Callable[[memoryview], None] = lambda _: None
        self.vectors = 0
        """The vectors that may be forwarded."""

    def set_vectors(self, mask: int) -> None:
        """Forward the vectors of a mask from now on.

        Not for #BP and #OF: at their exits RIP is on the instruction, and the hypervisor knows what comes after it.
        """
        self.vectors = mask & ~SOFTWARE_EXCEPTIONS

    def set_sink(self, sink: Callable[[memoryview], None]) -> None:
        """See `machine.Processor.on_records`."""
        self._sink = sink

    def forward(self, vector: int, code: int, address: int | None) -> Next:
        """Record an exception that was intercepted, and deliver it."""
        flags, word = RecordFlags.FORWARDED, exception_word(vector, code)
        if word & ERROR_CODE_VALID:
            flags |= RecordFlags.HAS_ERROR_CODE
        else:
            code = 0
        if address is None:
            address = 0
        else:
            flags |= RecordFlags.HAS_ADDRESS
            self._save.cr2 = address
        tsc = self._now() - self._started
        self._writer.write(self._buffer, self.waits, tsc, vector, flags, code, 0, address, word)
        self.waits += RECORD_SIZE
        if self.waits == len(self._buffer):
            self.flush()
        return self._cpu.deliver_exception(word)

    def flush(self) -> None:
        """Give the sink the records that wait."""
        taken, self.waits = self.waits, 0
        self._sink(self._buffer[:taken])
