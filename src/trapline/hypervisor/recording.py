"""A `Record` of an exception that the hypervisor decided on, like those that a processor writes by itself."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trapline.arch.events import SHUTDOWN, Event, encode
from trapline.arch.layout import offset_of, packer
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import Vmcb
from trapline.machine.record import Record, RecordFlags

from .observers import Delivery, Verdict

if TYPE_CHECKING:
    from .vcpu import Vcpu

_PACK, _ORDER = packer(Record)
assert _ORDER == (
    "tsc", "vector", "cpl", "flags", "error_code", "exit_int_info", "rip", "rsp", "rflags", "cr3", "address",
    "cs", "ss", "vcpu", "cs_base", "cr0", "cr4", "efer", "dr6", "event",
), "a record is packed in this order below"  # fmt: skip
_SAVED: Final = tuple(
    offset_of(Vmcb, f"save.{name}") // 8
    for name in ("rip", "rsp", "rflags", "cr3", "cs.base", "cr0", "cr4", "efer", "dr6")
)
"""Fields of the save area as words of eight bytes: taken so they cost half as much."""


class Recording:
    """A recorder for `Vm.recorder`: writes one record for each exception and gives it to a sink."""

    def __init__(self, sink: Callable[[memoryview], None]) -> None:
        self._sink = sink
        self._bytes = memoryview(bytearray(_PACK.size))
        self._vmcb: Vmcb | None = None
        self._words = memoryview(bytes(8)).cast("Q")

    def __call__(self, vcpu: "Vcpu", delivery: Delivery) -> None:
        """Record an exception and what became of it. Vectors that are not forced stay unrecorded."""
        exit, _, injected = delivery
        vector, _, code = exit.event
        if not vcpu.vm.mask >> vector & 1:
            return
        processor, save = vcpu.processor, vcpu.save
        if processor.vmcb is not self._vmcb:
            self._vmcb, self._words = processor.vmcb, memoryview(processor.vmcb).cast("B").cast("Q")
        words = self._words
        rip, rsp, rflags, cr3, cs_base, cr0, cr4, efer, dr6 = [words[place] for place in _SAVED]
        _PACK.pack_into(
            self._bytes, 0,
            processor.tsc, vector, save.cpl, _flags(delivery), code or 0,
            encode(exit.vectoring) if exit.vectoring else 0,
            rip, rsp, rflags, cr3, exit.address or 0, save.cs.selector, save.ss.selector, vcpu.number,
            cs_base, cr0, cr4, efer, dr6,
            encode(injected) if isinstance(injected, Event) else 0,
        )  # fmt: skip
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
