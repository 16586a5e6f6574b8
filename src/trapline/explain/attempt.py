"""One delivery by the model: of an event, in a state that can be changed to see whether the delivery then succeeds."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from trapline.arch.address_space import AddressSpace
from trapline.arch.delivery import Delivered, Failed, deliver
from trapline.arch.descriptors import (
    DPL_SHIFT,
    GATE_SIZE,
    LONG_GATE_SIZE,
    REAL_GATE_SIZE,
    Attribute,
    Selector,
    attributes,
    base,
    gate_offset_32,
    gate_offset_64,
    gate_selector,
    ist_offset,
    rsp_offset,
    stack_slot,
)
from trapline.arch.events import Event
from trapline.arch.paging import FETCH, IMPLICIT, PAGE, READ, USER, NotMapped, PageFault
from trapline.arch.registers import CR0
from trapline.arch.vmcb import SaveArea
from trapline.machine.linear import code_address, code_bits

from .evidence import Evidence, set_field
from .memory import PartialMemory

SYSTEM: Final = READ | IMPLICIT
"""How the processor reads a table."""
_NO_CHANGES: Final[Mapping[str, int]] = {}


class Change(NamedTuple):
    """A change of the state or of memory. It is made in a copy, never in the guest."""

    text: str
    """As "with IDTR.limit 0xfff"."""
    registers: Mapping[str, int] = _NO_CHANGES
    """Fields of the save area by path."""
    stores: tuple[tuple[int, bytes], ...] = ()
    """Guest-physical addresses, and the bytes to store there."""


class Finding(NamedTuple):
    """What may be wrong. It is proven if the event reaches its handler with one of the changes."""

    cause: str
    """A sentence."""
    changes: Iterable[Change]
    early: bool = False
    """The guest had not come to handling exceptions yet: what raised the first one is the cause before this one."""


class Slot(NamedTuple):
    """The place in the TSS from which a delivery takes its stack pointer (APM 12.2.4, 12.2.5)."""

    name: str
    """As RSP0, IST1 or ESP0."""
    level: int
    """The privilege level, or the number of the IST stack."""
    gva: int
    offset: int
    """In the TSS."""
    width: int
    """Bytes of the stack pointer; in a legacy TSS the selector of the stack follows it."""


class Attempt:
    """The delivery of an event in a state."""

    def __init__(self, save: SaveArea, memory: PartialMemory, event: Event, physical_bits: int) -> None:
        self.save, self.memory, self.event, self.physical_bits = save, memory, event, physical_bits
        self.space = AddressSpace(memory, save.cr0, save.cr3, save.cr4, save.efer, physical_bits)
        self.long = self.space.long
        self.real = not save.cr0 & CR0.PE
        self.gate_size = LONG_GATE_SIZE if self.long else REAL_GATE_SIZE if self.real else GATE_SIZE
        self.gate_gva = save.idtr.base + event.vector * self.gate_size & self.space.mask

    @classmethod
    def of(cls, evidence: Evidence, event: Event) -> "Attempt":
        """Return the delivery of an event in the evidence's state."""
        return cls(evidence.save, evidence.memory, event, evidence.physical_bits)

    def changed(self, change: Change) -> "Attempt":
        """Return the delivery of the event after a change."""
        save = SaveArea.from_buffer_copy(self.save)
        for path, value in change.registers.items():
            set_field(save, path, value)
        return Attempt(save, self.memory.changed(change.stores), self.event, self.physical_bits)

    def deliver(self) -> Delivered | Failed:
        """Return what the model of delivery does."""
        return deliver(self.save, self.event, self.memory, physical_bits=self.physical_bits)

    def succeeds(self) -> bool:
        """Return whether the event is delivered, and its handler's first instruction can be fetched."""
        outcome = self.deliver()
        return isinstance(outcome, Delivered) and self.handler_is_executable(outcome)

    def handler_is_executable(self, delivered: Delivered) -> bool:
        """Return whether the handler's first instruction can be fetched."""
        return self.translate(self.handler(delivered), FETCH | (USER if delivered.cpl == 3 else 0)) is not None

    def handler(self, delivered: Delivered) -> int:
        """Return the linear address of the handler."""
        return (0 if self.long else delivered.cs.base) + delivered.rip & self.space.mask

    def translate(self, gva: int, access: int = SYSTEM) -> int | None:
        """Return the gpa of a linear address; None: page tables deny the access."""
        try:
            return self.space.translate(gva & self.space.mask, access)
        except (PageFault, NotMapped):
            return None

    def unbacked(self, gva: int) -> int | None:
        """Return the gpa that a linear address is mapped to if there is no memory there; else None."""
        gpa = self.translate(gva)
        return gpa if gpa is not None and self.memory.qword(gpa & ~7) is None else None

    def read(self, gva: int, size: int) -> int | None:
        """Return `size` bytes of linear memory as an integer, read as the processor reads a table; None: it cannot."""
        gpa = self.translate(gva)
        if gpa is None:
            return None
        here = PAGE - gva % PAGE
        if size <= here:
            return self.memory.read(gpa, size)
        rest = self.read(gva + here, size - here)
        return None if rest is None else self.memory.read(gpa, here) | rest << 8 * here

    @property
    def rip(self) -> int:
        """The linear address of the instruction."""
        return code_address(self.save)

    @property
    def bits(self) -> int:
        """The size of the code that is executed: 16, 32 or 64."""
        return code_bits(self.save)

    @property
    def is_64_bit(self) -> bool:
        """Whether the instruction is 64-bit code."""
        return self.bits == 64

    @property
    def gate(self) -> int:
        """The first 8 bytes of the gate; 0 where it cannot be read."""
        return self.read(self.gate_gva, min(self.gate_size, 8)) or 0

    @property
    def selector(self) -> int:
        """The gate's selector."""
        return gate_selector(self.gate)

    def entry_point(self, vector: int) -> int | None:
        """Return the linear address of a handler, by its gate; None: in real mode, or without a valid selector."""
        if self.real or (vector + 1) * self.gate_size > self.save.idtr.limit + 1:
            return None
        entry = self.entry(self.save.idtr.base + vector * self.gate_size & self.space.mask)
        return None if entry is None else entry[0]

    def entry(self, gate_gva: int) -> tuple[int, int] | None:
        """Return where a gate leads, as a linear address, and the size of the code there, outside real mode.

        None: it has no valid selector, or cannot be read.
        """
        gate = self.read(gate_gva, 8)
        descriptor = None if gate is None else self.descriptor(gate_selector(gate))
        if gate is None or descriptor is None:
            return None
        if self.long:
            return gate_offset_64(gate, self.read(gate_gva + 8, 4) or 0), 64
        bits = 32 if attributes(descriptor) & Attribute.DB else 16
        return base(descriptor) + gate_offset_32(gate) & self.space.mask, bits

    def descriptor(self, selector: int) -> int | None:
        """Return the descriptor of a selector; None: it is null, beyond the end of its table, or cannot be read."""
        table = self.save.ldtr if selector & Selector.TI else self.save.gdtr
        offset = selector & Selector.INDEX
        if not selector & Selector.REFERENCE or offset + 7 > table.limit:
            return None
        return self.read(table.base + offset, 8)

    def slot(self) -> Slot | None:
        """Return where the TSS has the stack for this delivery; None: the stack does not change."""
        save, level = self.save, self.save.cpl
        descriptor = self.descriptor(self.selector)
        if descriptor is not None and not attributes(descriptor) & Attribute.CONFORMING:
            level = min(level, attributes(descriptor) >> DPL_SHIFT & 3)
        ist = self.gate >> 32 & 7 if self.long else 0
        if self.real or (level == save.cpl and not ist):
            return None
        if self.long:
            offset = ist_offset(ist) if ist else rsp_offset(level)
            name, level = (f"IST{ist}", ist) if ist else (f"RSP{level}", level)
            return Slot(name, level, save.tr.base + offset, offset, 8)
        place = stack_slot(save.tr.attributes & Attribute.TYPE, level)
        return Slot(f"ESP{level}" if place.width == 4 else f"SP{level}", level, save.tr.base + place.offset, *place)

    def store(self, gva: int, value: int, size: int) -> tuple[tuple[int, bytes], ...] | None:
        """Return a store to a linear address as stores to physical memory; None: no memory, or in two pages."""
        gpa = self.translate(gva)
        if gpa is None or gva % PAGE + size > PAGE or self.unbacked(gva) is not None:
            return None
        return ((gpa, value.to_bytes(size, "little")),)
