"""Changes that may make a delivery succeed: gates, descriptors, stacks and tables.

New tables are put into mapped memory that the delivery does not use otherwise. The model shows whether a change helps;
none is ever made in a guest.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from trapline.arch.descriptors import (
    CODE_32,
    CODE_64,
    DPL_SHIFT,
    TSS_SIZE,
    Attribute,
    Selector,
    attributes,
    gate_offset_64,
)
from trapline.arch.encode import descriptor, far_pointer, gate, long_gate
from trapline.arch.paging import FETCH, PAGE, WRITE
from trapline.arch.vectors import mnemonic

from .attempt import SYSTEM, Attempt, Change, Slot

_CODE: Final = Attribute.S | Attribute.CODE | Attribute.P
_ENTRIES: Final = 64
"""How many descriptors of the GDT are tried."""
_PLACES: Final = (0xF00, 0x700, 0x300)
"""Offsets in a page at which a new table is tried."""
_ROOM: Final = 128
"""Bytes of the largest new table, a TSS."""
_TOP: Final = 0xF00
"""Offset in a page at which a new stack begins."""
_STACK_PAGES: Final = 16
"""How many pages from RSP up are tried for a stack."""
_AFTER_CODE: Final = 4
"""How many pages after the instruction are tried for a table."""


def code_selectors(attempt: Attempt) -> Iterator[int]:
    """Yield selectors of the GDT for a handler: of present code of DPL 0, in long mode of 64-bit code."""
    for selector in dict.fromkeys(
        (attempt.save.cs.selector, *range(8, min(attempt.save.gdtr.limit + 1, 8 * _ENTRIES), 8))
    ):
        found = attempt.descriptor(selector)
        if found is None or selector & Selector.TI:
            continue
        kept = attributes(found)
        long = kept & (Attribute.L | Attribute.DB) == Attribute.L
        if kept & _CODE == _CODE and not kept >> DPL_SHIFT & 3 and (long or not attempt.long):
            yield selector & ~Selector.RPL


def handlers(attempt: Attempt) -> Iterator[int]:
    """Yield addresses for a handler at CPL 0: those in the IDT, the one of the event first, then RIP and LSTAR."""
    save = attempt.save
    for vector in (attempt.event.vector, *range(32)):
        gva = save.idtr.base + vector * attempt.gate_size
        low = attempt.read(gva, 8)
        if low:
            yield gate_offset_64(low, (attempt.read(gva + 8, 4) or 0) if attempt.long else 0)
    yield save.rip
    yield save.lstar


def handler(attempt: Attempt) -> int:
    """Return an executable address for a handler."""
    found = (address for address in handlers(attempt) if attempt.translate(address, FETCH) is not None)
    return next(found, attempt.save.rip)


def gate_bytes(attempt: Attempt, selector: int, offset: int) -> bytes:
    """Return a present interrupt gate of DPL 3; in real mode a far pointer."""
    if attempt.real:
        return far_pointer(selector, offset & 0xFFFF).to_bytes(4, "little")
    if attempt.long:
        return long_gate(selector, offset, dpl=3).to_bytes(16, "little")
    return gate(selector, offset & 0xFFFF_FFFF, dpl=3).to_bytes(8, "little")


def own_gate(attempt: Attempt) -> Iterator[Change]:
    """Yield a valid gate in place of the event's."""
    text = f"with an interrupt gate in IDT entry {attempt.event.vector}"
    address = handler(attempt)
    for selector in (0,) if attempt.real else code_selectors(attempt):
        data = gate_bytes(attempt, selector, address)
        stores = attempt.store(attempt.gate_gva, int.from_bytes(data, "little"), len(data))
        if stores is not None:
            yield Change(text, {}, stores)


def new_idt(attempt: Attempt) -> Iterator[Change]:
    """Yield another IDT, with a valid gate for the event."""
    name, vector = mnemonic(attempt.event.vector), attempt.event.vector
    selectors = (0,) if attempt.real else tuple(code_selectors(attempt))[:2]
    address = handler(attempt)
    for place in places(attempt):
        for selector in selectors:
            data = gate_bytes(attempt, selector, address)
            base = place - vector * attempt.gate_size & attempt.space.mask
            stores = attempt.store(place, int.from_bytes(data, "little"), len(data))
            if stores is not None:
                yield Change(
                    f"with an IDT whose entry {vector} ({name}) is an interrupt gate",
                    {"idtr.base": base, "idtr.limit": 256 * attempt.gate_size - 1},
                    stores,
                )


def new_gdt(attempt: Attempt) -> Iterator[Change]:
    """Yield another GDT, with code for the handler at the gate's selector."""
    start = attempt.save.cs.base & 0xFFFF_FFFF if attempt.save.cpl == 0 and not attempt.long else 0
    code = descriptor(start, 0xFFFF_FFFF, CODE_64 if attempt.long else CODE_32)
    offset = attempt.selector & Selector.INDEX
    for place in places(attempt):
        stores = attempt.store(place, code, 8)
        if stores is not None:
            yield Change(
                f"with a code segment of DPL 0 at selector {attempt.selector:#x} of the GDT",
                {"gdtr.base": place - offset & attempt.space.mask, "gdtr.limit": offset + 7},
                stores,
            )


def new_tss(attempt: Attempt, slot: Slot) -> Iterator[Change]:
    """Yield another TSS, with a stack in the slot."""
    for place in places(attempt):
        for top in stacks(attempt):
            value, size = _slot_value(attempt, slot, top)
            stores = None if value is None else attempt.store(place, value, size)
            if stores is not None:
                registers = {
                    "tr.base": place - slot.offset & attempt.space.mask,
                    "tr.limit": TSS_SIZE - 1,
                    "tr.attributes": attempt.save.tr.attributes | Attribute.WIDE_TSS,
                }
                yield Change(f"with a TSS whose {slot.name} points to mapped memory", registers, stores)


def slot_value(attempt: Attempt, slot: Slot) -> Iterator[Change]:
    """Yield the TSS with a stack in its slot."""
    for top in stacks(attempt):
        value, size = _slot_value(attempt, slot, top)
        stores = None if value is None else attempt.store(slot.gva, value, size)
        if stores is not None:
            yield Change(f"with {slot.name} pointing to mapped memory", {}, stores)


def _slot_value(attempt: Attempt, slot: Slot, top: int) -> tuple[int | None, int]:
    """Return the bytes of a slot as an integer, and their number: the stack pointer, in a legacy TSS then SS."""
    if attempt.long:
        return top, 8
    selector = next(data_selectors(attempt), None)
    if selector is None or top >> 8 * slot.width:
        return None, 0
    return top | selector << 8 * slot.width, 2 * slot.width


def data_selectors(attempt: Attempt) -> Iterator[int]:
    """Yield selectors of the GDT for SS at CPL 0."""
    for selector in range(8, min(attempt.save.gdtr.limit + 1, 8 * _ENTRIES), 8):
        found = attempt.descriptor(selector)
        wanted = Attribute.S | Attribute.P | Attribute.WRITABLE
        if found is None:
            continue
        kept = attributes(found)
        if kept & (wanted | Attribute.CODE | Attribute.EXPAND_DOWN | 3 << DPL_SHIFT) == wanted:
            yield selector


def new_stack(attempt: Attempt) -> Iterator[Change]:
    """Yield another stack pointer."""
    for top in stacks(attempt):
        yield Change("with RSP in writable memory", {"rsp": top})


def stacks(attempt: Attempt) -> Iterator[int]:
    """Yield linear addresses below which the supervisor can write: never in the code, nor in a stack of CPL 3."""
    save = attempt.save
    own = (save.rsp + page * PAGE for page in range(_STACK_PAGES)) if save.cpl < 3 else ()
    slots = (
        attempt.read(save.tr.base + 4 + 8 * number, 8) for number in range(11) if attempt.long and save.tr.limit > 0x60
    )
    others = (*((slot or 0) - 8 for slot in slots), *_tables(attempt))
    tops = (page * PAGE + _TOP for page in _pages(attempt, (*own, *others)))
    yield from (top for top in tops if attempt.translate(top, WRITE) is not None)


def places(attempt: Attempt) -> Iterator[int]:
    """Yield linear addresses at which the processor can read a table, those with zeros first.

    None is in the code, nor in a stack of CPL 3.
    """
    save = attempt.save
    stack = (save.rsp,) if save.cpl < 3 else ()
    after = (attempt.rip + page * PAGE for page in range(1, _AFTER_CODE + 1)) if save.cpl < 3 else ()
    used = []
    for page in _pages(attempt, (*_tables(attempt), *after, *stack)):
        for place in (page * PAGE + offset for offset in _PLACES):
            if attempt.translate(place, SYSTEM) is None:
                continue
            if attempt.read(place, _ROOM):
                used.append(place)
            else:
                yield place
    yield from used


def _pages(attempt: Attempt, addresses: Iterable[int]) -> Iterator[int]:
    """Yield the numbers of the pages of linear addresses, each once, but not that of the instruction."""
    seen = {attempt.rip // PAGE}
    for page in ((address & attempt.space.mask) // PAGE for address in addresses):
        if page not in seen:
            seen.add(page)
            yield page


def _tables(attempt: Attempt) -> tuple[int, ...]:
    save = attempt.save
    return save.gdtr.base, save.gdtr.base + PAGE, save.idtr.base, save.tr.base, save.tr.base + PAGE
