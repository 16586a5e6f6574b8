"""The tables of a stopped CPU, decoded: IDT, GDT, LDT, TSS, and the page walk of an address.

The values are those of the pictures in explanations: a `Table` of `Entry`, each with its state and its fields.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from trapline.arch.descriptors import Selector
from trapline.arch.events import Event, EventType
from trapline.arch.paging import NX, RW, US, PageFault
from trapline.arch.registers import CR4
from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.explain import pages
from trapline.explain.attempt import Attempt
from trapline.explain.memory import partial_memory
from trapline.explain.pictures import State, Table, WalkEntry
from trapline.explain.pictures.descriptors import descriptor_table
from trapline.explain.pictures.gates import gate_table
from trapline.explain.pictures.task import task_state
from trapline.explain.pictures.walk import walk_entry

from .target import Target

GATES: Final = 256
"""Entries of an IDT."""
DESCRIPTORS: Final = 8192
"""The most entries that a GDT or an LDT has."""
_NOTHING: Final = Event(Vector.NMI, EventType.NMI)
"""An event for a CPU that delivers none."""


class PageWalk(NamedTuple):
    """How a linear address becomes a physical one (APM 5.1 to 5.4)."""

    address: int
    cr3: int
    entries: tuple[WalkEntry, ...]
    """The entries that the CPU reads, from the root on; none without paging."""
    gpa: int | None
    """The physical address; None: the address has none."""
    rights: tuple[str, ...]
    """What the entries permit together: some of `read`, `write`, `execute`, `user`."""
    denied: str | None
    """Why it has none, as the end of a sentence."""


def idt(target: Target, count: int = GATES) -> Table:
    """Return the first entries of the interrupt descriptor table, or of real mode's vector table, within its limit."""
    table = gate_table(_attempt(target), (), target.machine.session.names.text, shown=count, detailed=True)
    return _within(table)


def gdt(target: Target, count: int = DESCRIPTORS) -> Table:
    """Return the first entries of the global descriptor table."""
    return descriptor_table(_attempt(target), (), 0, shown=count, detailed=True)


def ldt(target: Target, count: int = DESCRIPTORS) -> Table:
    """Return the first entries of the local descriptor table; raises UsageError where none is loaded."""
    if not target.cpu.registers.ldtr.selector & Selector.REFERENCE:
        raise UsageError("no LDT is loaded: LDTR is null")
    return descriptor_table(_attempt(target), (), Selector.TI, shown=count, detailed=True)


def tss(target: Target) -> Table:
    """Return the stacks in the task-state segment; raises UsageError where none is loaded."""
    attempt = _attempt(target)
    if attempt.real or not attempt.save.tr.selector & Selector.REFERENCE:
        raise UsageError("no TSS is loaded: TR is null" if not attempt.real else "real mode has no TSS")
    return task_state(attempt)


def walk(target: Target, address: int) -> PageWalk:
    """Return the walk of a linear address. Accessed and dirty bits of the guest are not set."""
    attempt = _attempt(target)
    address &= attempt.space.mask
    entries, end = pages.walked(attempt, address)
    fault = end if isinstance(end, PageFault) else None
    shown = tuple(walk_entry(entry, address, fault if entry is entries[-1] else None) for entry in entries)
    cr3 = attempt.save.cr3
    if isinstance(end, int):
        return PageWalk(address, cr3, shown, end, _rights(attempt, entries), None)
    return PageWalk(address, cr3, shown, None, (), pages.why(attempt, address, 0, ac=True) or "not mapped")


def _attempt(target: Target) -> Attempt:
    target.cpu.registers.check(False)
    processor = target.cpu.vcpu.processor
    memory = partial_memory(processor.memory)
    return Attempt(processor.vmcb.save, memory, _NOTHING, processor.capabilities.physical_bits)


def _within(table: Table) -> Table:
    return table._replace(entries=tuple(entry for entry in table.entries if entry.state is not State.BEYOND))


def _rights(attempt: Attempt, entries: Sequence[pages.Entry]) -> tuple[str, ...]:
    """Return what page tables permit; the entries of PAE's first table have no rights (APM 5.2.3)."""
    legacy_pae = not attempt.long and attempt.save.cr4 & CR4.PAE
    checked = [entry.value for entry in (entries[1:] if legacy_pae else entries)]
    found = {
        "read": True,
        "write": all(value & RW for value in checked),
        "execute": not any(value & NX for value in checked),
        "user": all(value & US for value in checked),
    }
    return tuple(name for name, permitted in found.items() if permitted)
