"""The expected registers and memory after a turn, by the model of delivery."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from trapline.arch.delivery import Delivered, apply, deliver
from trapline.arch.descriptors import Attribute
from trapline.arch.events import Event, decode
from trapline.arch.memory import ReaderMemory, open_bus
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea, Segment, Vmcb
from trapline.machine.processor import Processor

_SEGMENTS: Final = ("es", "cs", "ss", "ds", "fs", "gs", "tr")
_REGISTERS: Final = (
    "rip", "rsp", "rax", "rflags", "cpl", "cr0", "cr2", "cr3", "cr4", "efer", "dr6", "dr7",
    "star", "lstar", "cstar", "sfmask", "kernel_gs_base", "sysenter_cs", "sysenter_esp", "sysenter_eip",
)  # fmt: skip
_GPRS: Final = ("rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{number}" for number in range(8, 16)))


class Prediction(NamedTuple):
    """The state after a turn."""

    save: SaveArea
    gprs: Gprs
    stores: tuple[tuple[int, bytes], ...]

    def store(self, processor: Processor) -> None:
        """Write the state to a processor."""
        memoryview(processor.vmcb.save).cast("B")[:] = memoryview(self.save).cast("B")
        memoryview(processor.gprs).cast("B")[:] = memoryview(self.gprs).cast("B")
        for gpa, data in self.stores:
            processor.memory.write(gpa, data)


def put_field(vmcb: Vmcb, gprs: Gprs, path: str, value: int) -> None:
    """Write a field by its path: "save.cs.base", "control.nrip", "gprs.rcx"."""
    area, *names = path.split(".")
    structure: object = gprs if area == "gprs" else getattr(vmcb, area)
    for name in names[:-1]:
        structure = getattr(structure, name)
    assert hasattr(structure, names[-1]), path
    setattr(structure, names[-1], value)


def predict(
    processor: Processor,
    event: Event | None,
    *,
    fails: bool,
    raised_at: int | None,
    next_rip: int | None,
    changes: Mapping[str, int],
    stores: tuple[tuple[int, bytes], ...],
    rip: int | None,
) -> Prediction:
    """Return the state after a turn that starts with the processor's state; the arguments are those of `check.Exit`."""
    vmcb, gprs = Vmcb.from_buffer_copy(processor.vmcb), Gprs.from_buffer_copy(processor.gprs)
    save, after = vmcb.save, list(stores)
    injected = decode(vmcb.control.event_inj)
    if injected is not None and not fails:
        after += _deliver(processor, save, injected, vmcb.control.nrip)
    for path, value in changes.items():
        put_field(vmcb, gprs, path, value)
    if event is not None:
        if raised_at is not None:
            save.rip = raised_at
        after += _deliver(processor, save, event, next_rip)
    if rip is not None:
        save.rip = rip
    return Prediction(save, gprs, tuple(after))


def differences(prediction: Prediction, processor: Processor) -> list[str]:
    """Name each register and each byte of memory that is not as predicted."""
    found = [
        f"{name} is {value:#x}, expected {wanted:#x}"
        for name, value, wanted in _registers(prediction, processor)
        if value != wanted
    ]
    for gpa, data in prediction.stores:
        got = processor.memory.read(gpa, len(data))
        if got != data:
            found.append(f"memory at {gpa:#x} is {got.hex(' ')}, expected {data.hex(' ')}")
    return found


def _deliver(processor: Processor, save: SaveArea, event: Event, next_rip: int | None) -> list[tuple[int, bytes]]:
    capabilities = processor.capabilities
    outcome = deliver(
        save,
        event,
        ReaderMemory(open_bus(processor.memory.read)),
        next_rip=next_rip,
        physical_bits=capabilities.physical_bits,
        sets_rf=capabilities.sets_rf,
        interrupts_keep_rf=capabilities.interrupts_keep_rf,
    )
    assert isinstance(outcome, Delivered), f"{event}: {outcome}"
    apply(save, outcome)
    return outcome.writes


def _registers(prediction: Prediction, processor: Processor) -> Iterator[tuple[str, int, int]]:
    save, gprs = processor.vmcb.save, processor.gprs
    for name in _REGISTERS:
        yield name.upper(), getattr(save, name), getattr(prediction.save, name)
    for name in _GPRS:
        yield name.upper(), getattr(gprs, name), getattr(prediction.gprs, name)
    for name in _SEGMENTS:
        yield from _segment(name.upper(), getattr(save, name), getattr(prediction.save, name))
    for name in ("gdtr", "idtr"):
        table, wanted = getattr(save, name), getattr(prediction.save, name)
        yield f"{name.upper()}.base", table.base, wanted.base
        yield f"{name.upper()}.limit", table.limit, wanted.limit


def _segment(name: str, segment: Segment, wanted: Segment) -> Iterator[tuple[str, int, int]]:
    yield f"{name}.selector", segment.selector, wanted.selector
    if wanted.attributes & Attribute.P:  # the rest of a null segment register is undefined
        yield f"{name}.attributes", segment.attributes, wanted.attributes
        yield f"{name}.base", segment.base, wanted.base
        yield f"{name}.limit", segment.limit, wanted.limit
