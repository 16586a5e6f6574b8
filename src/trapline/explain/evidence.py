"""Evidence: the state of a stopped guest whose exception could not be delivered, as data and as JSON."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from trapline.arch.events import SHUTDOWN, Event, Shutdown
from trapline.arch.layout import Structure, leaves
from trapline.arch.registers import Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.errors import UsageError
from trapline.machine.processor import Processor

from .memory import PartialMemory, partial_memory

TYPE: Final = "evidence"
"""The `type` of such a line; records have none."""

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

    @property
    def fatal(self) -> bool:
        """Whether it became a #DF or a shutdown."""
        return self.becomes is SHUTDOWN or (isinstance(self.becomes, Event) and self.becomes.vector == Vector.DF)

    def to_json(self) -> str:
        """Return one line of JSON, with its newline."""
        return (
            json.dumps(
                {
                    "type": TYPE,
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
    )


def from_json(fields: Mapping[str, Any]) -> Evidence:
    """Return the evidence in a line of JSON; raises UsageError."""
    try:
        becomes = fields["becomes"]
        return Evidence(
            save=_fill(SaveArea(), fields["save"]),
            gprs=_fill(Gprs(), fields["gprs"]),
            event=_read_event(fields["event"]),
            vectoring=_read_event(fields["vectoring"]),
            address=_read(fields["address"]),
            first_address=_read(fields["first_address"]),
            becomes=SHUTDOWN if becomes == "shutdown" else _read_event(becomes),
            physical_bits=int(fields["physical_bits"]),
            memory=PartialMemory({int(gpa, 16): _read(value) for gpa, value in fields["memory"].items()}),
            sequence=fields.get("seq"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"a line of evidence is damaged: {error}") from error


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _read(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


def _event(event: Event | Shutdown | None) -> dict[str, int | None] | None:
    if not isinstance(event, Event):
        return None
    return {"vector": event.vector, "type": int(event.type), "error_code": event.error_code}


def _read_event(fields: Mapping[str, Any] | None) -> Event | None:
    if fields is None:
        return None
    return Event(int(fields["vector"]), int(fields["type"]), fields["error_code"])


def _fields(structure: Structure, places: _Places) -> dict[str, str]:
    """Return the fields that are not zero by their paths."""
    data = bytes(structure)
    values = ((path, int.from_bytes(data[start:end], "little")) for path, start, end in places)
    return {path: hex(value) for path, value in values if value}


def _fill(structure: Any, fields: Mapping[str, str]) -> Any:  # noqa: ANN401  # either structure
    for path, text in fields.items():
        set_field(structure, path, int(text, 16))
    return structure


def set_field(structure: Any, path: str, value: int) -> None:  # noqa: ANN401  # any structure
    """Set a field by its dotted path; AttributeError if there is none."""
    *outer, name = path.split(".")
    for part in outer:
        structure = getattr(structure, part)
    getattr(structure, name)  # a structure takes any attribute
    setattr(structure, name, value)
