"""What could have been otherwise: gates, descriptors, stacks and tables as they would have to be.

New tables are put where something is mapped that the delivery at hand does not look at; the model tells whether it
works. None of it is ever written to a guest.
"""

from collections.abc import Iterator
from typing import Final

from trapline.arch.descriptors import DPL_SHIFT, Attribute, GateType, Selector, attributes
from trapline.arch.paging import FETCH, PAGE, USER, WRITE
from trapline.arch.vectors import mnemonic

from .case import SYSTEM, Case, Change, Slot

_CODE: Final = Attribute.S | Attribute.CODE | Attribute.P
_ENTRIES: Final = 64
"""How many descriptors of the GDT are looked at."""
_PLACES: Final = (0xF00, 0x700, 0x300)
"""Offsets in a page where a new table may stand."""
_STACK_PAGES: Final = 16
"""How far above RSP a stack is looked for."""


def code_selectors(case: Case) -> Iterator[int]:
    """Yield selectors of the GDT that a handler may have: present code of ring 0, and of 64 bits in long mode."""
    for selector in dict.fromkeys((case.save.cs.selector, *range(8, min(case.save.gdtr.limit + 1, 8 * _ENTRIES), 8))):
        descriptor = case.descriptor(selector)
        if descriptor is None or selector & Selector.TI:
            continue
        kept = attributes(descriptor)
        long = kept & (Attribute.L | Attribute.DB) == Attribute.L
        if kept & _CODE == _CODE and not kept >> DPL_SHIFT & 3 and (long or not case.long):
            yield selector & ~Selector.RPL


def handlers(case: Case) -> Iterator[int]:
    """Yield addresses where a handler of ring 0 may start, the most natural first."""
    save = case.save
    for vector in (case.event.vector, *range(32)):
        gva = save.idtr.base + vector * case.gate_size
        gate = case.read(gva, 8)
        if gate:
            high = (case.read(gva + 8, 4) or 0) if case.long else 0
            yield gate & 0xFFFF | gate >> 32 & 0xFFFF_0000 | high << 32
    yield save.rip
    yield save.lstar


def handler(case: Case) -> int:
    """Return an address where a handler may start."""
    found = (address for address in handlers(case) if case.physical(address, FETCH) is not None)
    return next(found, case.save.rip)


def gate_bytes(case: Case, selector: int, offset: int) -> bytes:
    """Return a present interrupt gate, open to the event; in real mode a far pointer."""
    if case.real:
        return (offset & 0xFFFF | selector << 16).to_bytes(4, "little")
    low = offset & 0xFFFF | selector << 16 | (GateType.INTERRUPT_32 | 3 << 5 | 0x80) << 40
    low |= (offset >> 16 & 0xFFFF) << 48
    return low.to_bytes(8, "little") + ((offset >> 32).to_bytes(8, "little") if case.long else b"")


def own_gate(case: Case) -> Iterator[Change]:
    """Yield the gate made right where it stands."""
    words = f"with an interrupt gate in IDT entry {case.event.vector}"
    for selector in (0,) if case.real else code_selectors(case):
        data = gate_bytes(case, selector, handler(case))
        stores = case.stored(case.gate_gva, int.from_bytes(data, "little"), len(data))
        if stores is not None:
            yield Change(words, {}, stores)


def new_idt(case: Case) -> Iterator[Change]:
    """Yield an IDT that has the gate."""
    name, vector = mnemonic(case.event.vector), case.event.vector
    selectors = (0,) if case.real else tuple(code_selectors(case))[:2]
    for place in places(case):
        for selector in selectors:
            data = gate_bytes(case, selector, handler(case))
            base = place - vector * case.gate_size & case.space.mask
            stores = case.stored(place, int.from_bytes(data, "little"), len(data))
            if stores is not None:
                yield Change(
                    f"with an IDT whose entry {vector} ({name}) is an interrupt gate",
                    {"idtr.base": base, "idtr.limit": 256 * case.gate_size - 1},
                    stores,
                )


def new_gdt(case: Case) -> Iterator[Change]:
    """Yield a GDT that has code for the handler where the gate looks for it."""
    kind = Attribute.G | (Attribute.L if case.long else Attribute.DB)
    start = case.save.cs.base & 0xFFFF_FFFF if case.save.cpl == 0 and not case.long else 0
    descriptor = 0xFFFF | 0xF << 48 | 0x9B << 40 | kind << 44 | (start & 0xFF_FFFF) << 16 | start >> 24 << 56
    offset = case.selector & Selector.INDEX
    for place in places(case):
        stores = case.stored(place, descriptor, 8)
        if stores is not None:
            yield Change(
                f"with ring-0 code for the handler at selector {case.selector:#x} of the GDT",
                {"gdtr.base": place - offset & case.space.mask, "gdtr.limit": offset + 7},
                stores,
            )


def new_tss(case: Case, slot: Slot) -> Iterator[Change]:
    """Yield a TSS that has the stack."""
    for place in places(case):
        for top in stacks(case):
            value, size = _slot_value(case, slot, top)
            stores = None if value is None else case.stored(place, value, size)
            if stores is not None:
                registers = {
                    "tr.base": place - slot.offset & case.space.mask,
                    "tr.limit": 0x67,
                    "tr.attributes": case.save.tr.attributes | Attribute.WIDE_TSS,
                }
                yield Change(f"with a TSS whose {slot.name} names a stack such as {top:#x}", registers, stores)


def slot_value(case: Case, slot: Slot) -> Iterator[Change]:
    """Yield the TSS with a good stack in its slot."""
    for top in stacks(case):
        value, size = _slot_value(case, slot, top)
        stores = None if value is None else case.stored(slot.gva, value, size)
        if stores is not None:
            yield Change(f"with a mapped stack in {slot.name}, such as {top:#x}", {}, stores)


def _slot_value(case: Case, slot: Slot, top: int) -> tuple[int | None, int]:
    """Return a stack pointer, in a legacy TSS with SS behind it, and its size."""
    if case.long:
        return top, 8
    selector = next(data_selectors(case), None)
    if selector is None or top >> 8 * slot.width:
        return None, 0
    return top | selector << 8 * slot.width, 2 * slot.width


def data_selectors(case: Case) -> Iterator[int]:
    """Yield selectors of the GDT that SS may have at ring 0."""
    for selector in range(8, min(case.save.gdtr.limit + 1, 8 * _ENTRIES), 8):
        descriptor = case.descriptor(selector)
        wanted = Attribute.S | Attribute.P | Attribute.WRITABLE
        if descriptor is None:
            continue
        kept = attributes(descriptor)
        if kept & (wanted | Attribute.CODE | Attribute.EXPAND_DOWN | 3 << DPL_SHIFT) == wanted:
            yield selector


def new_stack(case: Case) -> Iterator[Change]:
    """Yield the stack pointer where a stack is."""
    for top in stacks(case):
        yield Change(f"with RSP in writable memory, such as {top:#x}", {"rsp": top})


def stacks(case: Case) -> Iterator[int]:
    """Yield linear addresses with writable memory of the supervisor below."""
    save = case.save
    above = (save.rsp + page * PAGE for page in range(1, _STACK_PAGES)) if save.cpl < 3 else ()
    slots = (case.read(save.tr.base + 4 + 8 * number, 8) for number in range(11) if case.long and save.tr.limit > 0x60)
    candidates = (save.rsp, *above, *((slot or 0) - 8 for slot in slots), *_tables(case))
    for gva in dict.fromkeys((candidate & case.space.mask) // PAGE for candidate in candidates):
        top = gva * PAGE + 0xF00
        if case.physical(top, WRITE) is not None:
            yield top


def places(case: Case) -> Iterator[int]:
    """Yield linear addresses where the processor could read a table."""
    save = case.save
    candidates = (*_tables(case), case.rip, save.rsp)
    for page in dict.fromkeys((candidate & case.space.mask) // PAGE for candidate in candidates):
        for offset in _PLACES:
            if case.physical(page * PAGE + offset, SYSTEM) is not None:
                yield page * PAGE + offset


def _tables(case: Case) -> tuple[int, ...]:
    save = case.save
    return save.gdtr.base, save.gdtr.base + PAGE, save.idtr.base, save.tr.base, save.tr.base + PAGE


__all__ = [
    "USER",
    "code_selectors",
    "data_selectors",
    "handler",
    "new_gdt",
    "new_idt",
    "new_stack",
    "new_tss",
    "own_gate",
    "places",
    "slot_value",
    "stacks",
]
