"""What a processor took that the manual refuses: a real one raises #GP(0) there."""

from collections.abc import Iterator
from typing import Final

from trapline.arch.address_space import AddressSpace
from trapline.arch.control_registers import refuses_cr3
from trapline.arch.cpuid import CR4_FEATURES
from trapline.arch.descriptors import Attribute
from trapline.arch.events import Event, EventType
from trapline.arch.registers import CR0, CR3, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea, Segment
from trapline.machine.linear import code_bits, stack_pointer
from trapline.machine.processor import Processor

from .control import bits_of, lacking
from .cpuid import CpuidAnswers
from .explain import Disassembler
from .instruction import Namer
from .memory import PartialMemory
from .undelivered import explain_undelivered

_UNCHECKED: Final = "a real processor raises an exception there, and this one checks no limits"
_NO_MEMORY: Final = PartialMemory({})
_GP = Event(Vector.GP, EventType.EXCEPTION, 0)


def tolerated(processor: Processor, *, name: Namer, disassemble: Disassembler) -> str:
    """Return the sentence on the instruction at which the guest is stopped, and which its processor executes."""
    origin = explain_undelivered(processor, _GP, None, name=name, disassemble=disassemble).origin
    if origin is None:
        return f"A real processor raises #GP(0) at {processor.vmcb.save.rip:#x}: this one does not check the value."
    place = origin.symbol or f"{origin.cs:04x}:{origin.rip:x}"
    why = "" if origin.reason is None else f": {origin.reason}"
    return f"A real processor raises #GP(0) at {place} ({origin.instruction}), and this one does not{why}."


def refused_state(save: SaveArea, cpuid: CpuidAnswers, physical_bits: int) -> Iterator[str]:
    """Yield sentences on registers of a stopped guest that hold what a real processor does not take."""
    yield from _control_registers(save, cpuid, physical_bits)
    space = AddressSpace(_NO_MEMORY, save.cr0, save.cr3, save.cr4, save.efer)
    for name, value in _addresses(save):
        if not space.is_canonical(value):
            yield f"{name} is {value:#x}, not a canonical address: a real processor raises #GP(0) at a WRMSR of it."
    if code_bits(save) != 64:
        yield from _limits(save)


def _control_registers(save: SaveArea, cpuid: CpuidAnswers, physical_bits: int) -> Iterator[str]:
    """APM vol. 2, 3.1."""
    missing = lacking(cpuid, CR4, save.cr4, CR4_FEATURES)
    unknown = save.cr4 & ~(CR4.PCE | sum(row[0] for row in CR4_FEATURES))
    reserved = f"{bits_of(CR4, unknown)} is reserved" if unknown else None
    why = "; ".join(filter(None, (missing, reserved)))
    if why:
        text = f"CR4 is {save.cr4:#x}, and {why}: a real processor raises #GP(0) at a MOV to CR4 that sets it"
        if save.cr4 & CR4.PCIDE and save.cr3 & CR3.PCID:
            text += f", and one with PCIDE where CR3[11:0] is not zero: it is {save.cr3 & CR3.PCID:#x}"
        yield f"{text}."
    for wrong, text in (
        (save.cr0 & (CR0.NW | CR0.CD) == CR0.NW, "NW set and CD clear"),
        (save.cr0 & (CR0.PG | CR0.PE) == CR0.PG, "PG, paging, set and PE, protected mode, clear"),
    ):
        if wrong:
            yield f"CR0 is {save.cr0:#x}: a real processor raises #GP(0) at a MOV to CR0 with {text}."
    if save.efer & EFER.LMA and save.cr0 & CR0.PG and not save.cr4 & CR4.PAE:
        yield f"CR4 is {save.cr4:#x}: a real processor raises #GP(0) at a MOV to CR4 that clears PAE in long mode."
    if refuses_cr3(save, save.cr3, physical_bits):
        yield f"CR3 is {save.cr3:#x}, beyond {physical_bits} bits: a real processor raises #GP(0) at a MOV of it."


def _addresses(save: SaveArea) -> Iterator[tuple[str, int]]:
    for name in ("lstar", "cstar", "kernel_gs_base"):
        yield name.upper(), getattr(save, name)
    for name in ("fs", "gs"):
        yield f"the base of {name.upper()}", getattr(save, name).base


def _limits(save: SaveArea) -> Iterator[str]:
    """APM vol. 2, 4.12.2: TCG, which Unicorn is made of, too, checks no limit of a segment."""
    cs, ss, pointer = save.cs, save.ss, stack_pointer(save)
    if cs.attributes & Attribute.P and save.rip > cs.limit:
        yield f"The code is at offset {save.rip:#x}, beyond the limit of CS, {_limit(cs)}: {_UNCHECKED}."
    down = ss.attributes & (Attribute.CODE | Attribute.EXPAND_DOWN) == Attribute.EXPAND_DOWN
    if ss.attributes & Attribute.DB and not down and pointer > ss.limit + 1:
        yield f"The stack is at offset {pointer:#x}, beyond the limit of SS, {_limit(ss)}: {_UNCHECKED}."


def _limit(segment: Segment) -> str:
    granular = segment.attributes & Attribute.G
    return f"{segment.limit:#x}" if granular else f"{segment.limit:#x} (G, granularity, is clear in its descriptor)"


def ask_about_cr4(cpuid: CpuidAnswers) -> None:
    """Ask the guest's CPU what `refused_state` needs, as long as it answers."""
    for function in {row[1] for row in CR4_FEATURES}:
        cpuid(function)
