"""Evidence: the state of a stopped guest whose exception could not be delivered, as data and as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from trapline.arch.events import SHUTDOWN, Event, EventType, Shutdown
from trapline.arch.layout import Structure, leaves
from trapline.arch.registers import Gprs
from trapline.arch.vectors import VECTORS, Vector
from trapline.arch.vmcb import SaveArea
from trapline.errors import UsageError
from trapline.machine.processor import Processor
from trapline.symbols.efi_images import Image

from .cpuid import Answer, CpuidAnswers
from .memory import PartialMemory, partial_memory

if TYPE_CHECKING:
    from trapline.trace.stored import StoredEvent, StoredEvidence

_PHYSICAL: Final = 52
"""The most bits of a physical address (APM vol. 2, 5.1)."""
_S = TypeVar("_S", bound=Structure)
_Places: TypeAlias = tuple[tuple[str, int, int], ...]


def _places(structure: Structure) -> _Places:
    """Return path, start and end of each integer, without arrays and reserved bytes."""
    found = (leaf for leaf in leaves(structure) if "[" not in leaf.path)
    return tuple((leaf.path, leaf.offset, leaf.offset + leaf.size) for leaf in found)


_SAVE, _GPRS = _places(SaveArea()), _places(Gprs())


class Evidence(NamedTuple):
    """An exception that was raised during the delivery of another event, or a shutdown, before the guest ran on.

    The registers are those at the first exception of the chain: failed deliveries do not change them.
    """

    save: SaveArea
    gprs: Gprs
    """Without RAX and RSP, which are in the save area."""
    event: Event | None
    """What was raised; None: only the shutdown was intercepted."""
    vectoring: Event | None
    """What was being delivered; None: not known."""
    address: int | None
    """The faulting address of `event`."""
    first_address: int | None
    """The faulting address of `vectoring`, if it is a page fault."""
    becomes: Event | Shutdown | None
    """What the guest got for it; None: it was discarded."""
    physical_bits: int
    memory: PartialMemory
    """Guest-physical memory, as far as a delivery and its explanation read it."""
    sequence: int | None = None
    """The number of the record; None: there is none."""
    cpuid: CpuidAnswers = CpuidAnswers()
    """Of the guest's CPU, as far as an explanation asked."""
    unreturned: bool = False
    """It was delivered, and the guest ended in its handler."""
    vcpu: int = 0
    """The number of the CPU."""
    at_end: bool = False
    """Memory is as it was at the end of the run, and not as it was when the exception was raised."""
    images: tuple[Image, ...] = ()
    """What UEFI firmware had loaded; in the file of records only."""

    @property
    def fatal(self) -> bool:
        """Whether it became a #DF or a shutdown."""
        return self.becomes is SHUTDOWN or (isinstance(self.becomes, Event) and self.becomes.vector == Vector.DF)

    def to_json(self) -> str:
        """Return one line of JSON, with its newline."""
        return (
            json.dumps(
                {
                    "type": "evidence",
                    "seq": self.sequence,
                    "event": _event(self.event),
                    "vectoring": _event(self.vectoring),
                    "address": _hex(self.address),
                    "first_address": _hex(self.first_address),
                    "becomes": "shutdown" if self.becomes is SHUTDOWN else _event(self.becomes),
                    "physical_bits": self.physical_bits,
                    "save": _fields(self.save, _SAVE),
                    "gprs": _fields(self.gprs, _GPRS),
                    "memory": {hex(gpa): _hex(value) for gpa, value in sorted(self.memory.qwords.items())},
                    "cpuid": {
                        f"{function:x}.{subfunction:x}": [hex(value) for value in answer]
                        for (function, subfunction), answer in sorted(self.cpuid.answers.items())
                    },
                    **({"unreturned": True} if self.unreturned else {}),
                    **({"at_end": True} if self.at_end else {}),
                    **({"images": [_image(image) for image in self.images]} if self.images else {}),
                    **({"vcpu": self.vcpu} if self.vcpu else {}),
                },
                separators=(",", ":"),
            )
            + "\n"
        )


def capture(
    processor: Processor,
    event: Event | None,
    vectoring: Event | None,
    addresses: tuple[int | None, int | None],
    becomes: Event | Shutdown | None,
    sequence: int | None,
    vcpu: int = 0,
) -> Evidence:
    """Copy the registers of a stopped guest; its memory is read on demand. `addresses` are of `event`, `vectoring`."""
    address, first_address = addresses
    return Evidence(
        SaveArea.from_buffer_copy(processor.vmcb.save),
        Gprs.from_buffer_copy(processor.gprs),
        event,
        vectoring,
        address,
        first_address,
        becomes,
        processor.capabilities.physical_bits,
        partial_memory(processor.memory),
        sequence,
        CpuidAnswers(source=processor.cpuid),
        vcpu=vcpu,
    )


def from_stored(stored: "StoredEvidence") -> Evidence:
    """Return the evidence of a line; raises UsageError for a field or an address that there is not."""
    return Evidence(
        save=_fill(SaveArea(), stored.save, _SAVE),
        gprs=_fill(Gprs(), stored.gprs, _GPRS),
        event=_read_event(stored.event),
        vectoring=_read_event(stored.vectoring),
        address=_read(stored.address),
        first_address=_read(stored.first_address),
        becomes=SHUTDOWN if stored.becomes == "shutdown" else _read_event(stored.becomes),
        physical_bits=stored.physical_bits,
        memory=PartialMemory({_gpa(gpa): _read(value) for gpa, value in stored.memory.items()}),
        sequence=stored.seq,
        cpuid=CpuidAnswers({_function(name): _answer(values) for name, values in stored.cpuid.items()}),
        unreturned=stored.unreturned,
        at_end=stored.at_end,
        images=tuple(Image(each.name, int(each.base, 16), int(each.size, 16), each.module) for each in stored.images),
        vcpu=stored.vcpu,
    )


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _image(image: Image) -> dict[str, str | None]:
    return {**image._asdict(), "base": hex(image.base), "size": hex(image.size)}


def _read(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


def _event(event: Event | Shutdown | None) -> dict[str, int | None] | None:
    if not isinstance(event, Event):
        return None
    return {"vector": event.vector, "type": int(event.type), "error_code": event.error_code}


def _read_event(stored: "StoredEvent | None") -> Event | None:
    if stored is None:
        return None
    if stored.type == EventType.EXCEPTION and stored.vector >= len(VECTORS):
        raise UsageError(f"no exception has vector {stored.vector}")
    return Event(stored.vector, stored.type, stored.error_code)


def _gpa(text: str) -> int:
    gpa = int(text, 16)
    if gpa % 8 or gpa >> _PHYSICAL:
        raise UsageError(f"{text} is not the address of 8 bytes of memory")
    return gpa


def _function(text: str) -> tuple[int, int]:
    function, _, subfunction = text.partition(".")
    return int(function, 16), int(subfunction, 16)


def _answer(values: Sequence[str]) -> Answer:
    eax, ebx, ecx, edx = (int(value, 16) for value in values)
    return eax, ebx, ecx, edx


def _fields(structure: Structure, places: _Places) -> dict[str, str]:
    """Return the fields that are not zero by their paths."""
    data = bytes(structure)
    values = ((path, int.from_bytes(data[start:end], "little")) for path, start, end in places)
    return {path: hex(value) for path, value in values if value}


def _fill(structure: _S, fields: Mapping[str, str], places: _Places) -> _S:
    """Set the fields by their paths."""
    sizes = {path: end - start for path, start, end in places}
    for path, text in fields.items():
        value = int(text, 16)
        if path not in sizes:
            raise UsageError(f"there is no field {path!r}")
        if value >> 8 * sizes[path]:
            raise UsageError(f"{path} has {8 * sizes[path]} bits, not the value {text}")
        set_field(structure, path, value)
    return structure


def set_field(structure: Any, path: str, value: int) -> None:  # noqa: ANN401  # any structure
    """Set a field by its dotted path; AttributeError if there is none."""
    *outer, name = path.split(".")
    for part in outer:
        structure = getattr(structure, part)
    getattr(structure, name)  # a structure takes any attribute
    setattr(structure, name, value)
