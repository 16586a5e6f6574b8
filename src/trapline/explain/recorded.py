"""Evidence of an exception that was delivered: its record, completed from the state of the stopped guest."""

from typing import Final

from trapline.arch.bits import M16
from trapline.arch.descriptors import DATA_16, SegmentState, load
from trapline.arch.events import Event, EventType
from trapline.arch.registers import CR0, Gprs
from trapline.arch.vmcb import SaveArea, Segment
from trapline.machine.processor import Processor
from trapline.trace.exception_record import ExceptionRecord

from .attempt import Attempt
from .cpuid import CpuidAnswers
from .evidence import Evidence
from .memory import partial_memory

_SAME: Final = ("rip", "rsp", "rflags", "cr0", "cr3", "cr4", "efer", "dr6", "cpl")


def recorded_evidence(record: ExceptionRecord, processor: Processor) -> Evidence:
    """Return the evidence of a delivered exception: registers as recorded, tables and memory as they are now."""
    physical_bits = processor.capabilities.physical_bits
    before = SaveArea.from_buffer_copy(processor.vmcb.save)
    for name in _SAME:
        setattr(before, name, getattr(record, name))
    before.rax = record.registers.rax
    if record.address is not None:
        before.cr2 = record.address
    event = Event(record.vector, EventType.EXCEPTION, record.error_code)
    now = partial_memory(processor.memory)
    attempt = Attempt(before, now, event, physical_bits)
    _load(before.cs, record.cs, attempt)
    before.cs.base = record.cs_base
    _load(before.ss, record.ss, attempt)
    return Evidence(
        save=before,
        gprs=Gprs(**{name: value for name, value in record.registers._asdict().items() if name != "rax"}),
        event=event,
        vectoring=record.vectoring,
        address=record.address,
        first_address=None,
        becomes=record.injected,
        physical_bits=physical_bits,
        memory=now,
        sequence=record.seq,
        cpuid=CpuidAnswers(source=processor.cpuid),
        at_end=True,
    )


def _load(segment: Segment, selector: int, attempt: Attempt) -> None:
    """Load a segment register from its table, unless it has that selector still; null and in real mode none is read."""
    if segment.selector == selector:
        return
    descriptor = attempt.descriptor(selector)
    if attempt.save.cr0 & CR0.PE and descriptor is not None:
        loaded = load(selector, descriptor)
    else:
        loaded = SegmentState(selector, DATA_16, M16, selector << 4)
    segment.selector, segment.attributes, segment.limit, segment.base = loaded
