"""A `Record` of an exception that the hypervisor decided on, like those that a processor writes by itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trapline.arch.events import SHUTDOWN, Event, encode
from trapline.arch.layout import offset_of
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import Record, RecordFlags

from .observers import Delivery, Verdict

if TYPE_CHECKING:
    from .vcpu import Vcpu

_COPIED: Final = tuple(
    (offset_of(Record, to) // 8, offset_of(Vmcb, f"save.{of}") // 8)
    for to, of in (
        *((name, name) for name in ("rip", "rsp", "rflags", "cr3", "cr0", "cr4", "efer", "dr6")),
        ("cs_base", "cs.base"),
    )
)
"""From the save area to a record, in words of eight bytes: copied one by one they take half as long as fields."""


class Recording:
    """A recorder for `Vm.recorder`: writes one record for each exception and gives it to a sink."""

    def __init__(self, sink: Callable[[memoryview], None]) -> None:
        self._sink = sink
        self._record = Record()
        self._bytes = memoryview(self._record).cast("B")
        self._words = self._bytes.cast("Q")
        self._vmcb: Vmcb | None = None
        self._vmcb_words = self._words

    def __call__(self, vcpu: "Vcpu", delivery: Delivery) -> None:
        """Record an exception and what became of it. Vectors that are not forced stay unrecorded."""
        exit, record = delivery.exit, self._record
        if not vcpu.vm.mask >> exit.event.vector & 1:
            return
        vmcb = vcpu.processor.vmcb
        if vmcb is not self._vmcb:
            self._vmcb, self._vmcb_words = vmcb, memoryview(vmcb).cast("B").cast("Q")
        words, of = self._words, self._vmcb_words
        for place, source in _COPIED:
            words[place] = of[source]
        save = vmcb.save
        record.cpl, record.cs, record.ss = save.cpl, save.cs.selector, save.ss.selector
        record.tsc, record.vcpu = vcpu.processor.tsc, vcpu.number
        record.vector = exit.event.vector
        record.error_code = exit.event.error_code or 0
        record.address = exit.address or 0
        record.exit_int_info = encode(exit.vectoring) if exit.vectoring else 0
        record.event = encode(delivery.injected) if isinstance(delivery.injected, Event) else 0
        record.flags = _flags(delivery)
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
