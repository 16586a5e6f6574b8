"""A `Record` of an exception that the hypervisor decided on, like those that a processor writes by itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from trapline.arch.events import SHUTDOWN, Event, encode
from trapline.arch.vectors import Vector
from trapline.machine.record import RECORD_SIZE, RecordFlags, RecordWriter

from .observers import Delivery, Verdict

if TYPE_CHECKING:
    from .vcpu import Vcpu


class Recording:
    """A recorder for `Vm.recorder`: writes one record for each exception and gives it to a sink."""

    def __init__(self, sink: Callable[[memoryview], None]) -> None:
        self._sink = sink
        self._bytes = memoryview(bytearray(RECORD_SIZE))
        self._vcpu: Vcpu | None = None
        self._writer: RecordWriter | None = None

    def __call__(self, vcpu: "Vcpu", delivery: Delivery) -> None:
        """Record an exception and what became of it. Vectors that are not forced stay unrecorded."""
        exit, _, injected = delivery
        vector, _, code = exit.event
        if not vcpu.vm.mask >> vector & 1:
            return
        if self._writer is None or vcpu is not self._vcpu:
            self._vcpu, self._writer = vcpu, RecordWriter(vcpu.processor.vmcb, vcpu.number)
        self._writer.write(
            self._bytes,
            0,
            vcpu.processor.tsc,
            vector,
            _flags(delivery),
            code or 0,
            encode(exit.vectoring) if exit.vectoring else 0,
            exit.address or 0,
            encode(injected) if isinstance(injected, Event) else 0,
        )
        self._sink(self._bytes)


def _flags(delivery: Delivery) -> int:
    exit, injected = delivery.exit, delivery.injected
    flags = RecordFlags.SYNTHESIZED if exit.synthesized else 0
    if exit.event.error_code is not None:
        flags |= RecordFlags.HAS_ERROR_CODE
    if exit.address is not None:
        flags |= RecordFlags.HAS_ADDRESS
    if delivery.verdict is Verdict.DISCARD:
        return flags | RecordFlags.DISCARDED
    if injected is SHUTDOWN:
        return flags | RecordFlags.SHUTDOWN
    assert injected is not None, "only a discarded exception becomes nothing"
    combined = injected.vector == Vector.DF and exit.event.vector != Vector.DF
    return flags | (RecordFlags.COMBINED if combined else RecordFlags.FORWARDED)
