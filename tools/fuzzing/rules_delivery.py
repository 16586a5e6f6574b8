"""Rules: what the two processors do when they deliver events and walk tables, each named in `departures`."""

from typing import Final

from trapline.arch.descriptors import Attribute, Selector
from trapline.arch.events import VALID, Event, EventType, decode
from trapline.arch.paging import A
from trapline.arch.registers import CR0, CR4, EFER, RFLAGS
from trapline.arch.vectors import Vector

from . import places
from .compare import Difference
from .evidence import only, ours_of, pair_of, theirs_of

_RSV: Final = 1 << 3


def _codes(difference: Difference) -> tuple[int, int, Event] | None:
    """Return both error codes and what was being delivered, if nothing but the code of a delivery differs."""
    codes = difference.fields.get("error_code")
    if difference.record is None or codes is None or not only(difference, "error_code", "event"):
        return None
    vectoring = decode(difference.first.records[difference.record].exit_int_info)
    return None if vectoring is None else (*codes, vectoring)


def ext(difference: Difference) -> bool:
    """EXT in an error code."""
    if (codes := _codes(difference)) is None:
        return False
    ours, theirs, vectoring = codes
    return ours == theirs | 1 and vectoring.type != EventType.SOFT


def idt_code(difference: Difference) -> bool:
    """An error code that names the IDT."""
    if (codes := _codes(difference)) is None:
        return False
    ours, theirs, vectoring = codes
    return theirs == vectoring.vector * 16 + 2 and ours | 1 == vectoring.vector * 8 + 3


def reserved(difference: Difference) -> bool:
    """P in the error code of a #PF for reserved bits."""
    if not only(difference, "error_code", "event") or (pair := pair_of(difference)) is None:
        return False
    ours, theirs = pair
    return ours.vector == Vector.PF and bool(theirs.error_code & _RSV) and ours.error_code == theirs.error_code | 1


def stack_address(difference: Difference) -> bool:
    """#SS here, #GP there, in a delivery."""
    if (pair := pair_of(difference)) is None or not pair[0].efer & EFER.LMA:
        return False
    ours, theirs = pair
    return (ours.vector, theirs.vector, theirs.error_code) == (Vector.SS, Vector.GP, 0) and bool(
        ours.exit_int_info & VALID
    )


def handler_address(difference: Difference) -> bool:
    """A handler that is not canonical."""
    if (pair := pair_of(difference)) is None or not pair[0].efer & EFER.LMA:
        return False
    ours, theirs = pair
    canonical = theirs.rip >> 47 in (0, (1 << 17) - 1)
    return ours.vector == theirs.vector == Vector.GP and bool(ours.exit_int_info & VALID) and not canonical


def accessed(difference: Difference) -> bool:
    """Accessed bits of descriptors."""

    def known(name: str) -> bool:
        if name.endswith(".attributes"):
            return True
        at = int(name[1:-1], 16) if name.startswith("[") else 0
        return at % 8 == 5 and (places.GDT <= at < places.LDT + places.PAGE)

    return difference.record is None and all(
        known(name) and one ^ two == 1 for name, (one, two) in difference.fields.items()
    )


def stack_limit(difference: Difference) -> bool:
    """#SS here, in a delivery."""
    ours = ours_of(difference, Vector.SS)
    return ours is not None and bool(ours.exit_int_info & VALID) and not ours.efer & EFER.LMA


def inner_ring(difference: Difference) -> bool:
    """#GP here, of a handler in ring 1 or 2, when virtual-8086 mode is left."""
    ours = ours_of(difference, Vector.GP)
    if ours is None or not ours.exit_int_info & VALID or not ours.rflags & RFLAGS.VM:
        return False
    access = difference.first.memory[places.GDT + (ours.error_code & Selector.INDEX) + 5]
    return access >> 5 & 3 in (1, 2)


def narrow_gate(difference: Difference) -> bool:
    """A handler beyond 64 KiB there; the gate has 16 bits."""
    if _by_narrow_gate(difference):
        return True
    if difference.record is None and "rip" in difference.fields:
        return (
            difference.program.mode == "pm16" and difference.fields["rip"][1] == difference.fields["rip"][0] | 1 << 16
        )
    theirs = theirs_of(difference, Vector.PF)
    return (
        theirs is not None
        and difference.program.mode == "pm16"
        and theirs.rip >> 16 != 0
        and theirs.cs_base + theirs.rip == theirs.address
    )


def _by_narrow_gate(difference: Difference) -> bool:
    """Return whether the last exception of both came through such a gate, to a handler that differs so."""
    number, records = difference.record, difference.second.records
    if not number or number >= len(records) or difference.first.save.efer & EFER.LMA:
        return False
    gate = difference.first.memory[places.IDT + 8 * records[number - 1].vector + 5]
    low, high = difference.first.save.rip, records[number].rip
    return not gate & 8 and not low >> 16 and high >> 16 != 0 and (low ^ high) & 0xFF00 == 0


def pdpt(difference: Difference) -> bool:
    """A in entries of the PAE root, wherever CR3 pointed."""
    return set(difference.fields) == roots(difference)


def roots(difference: Difference) -> set[str]:
    """Return what differs in memory as PAE's accessed bit does."""
    save = difference.first.save
    if difference.record is not None or not save.cr4 & CR4.PAE or save.efer & EFER.LMA:
        return set()
    return {
        name
        for name, (one, two) in difference.fields.items()
        if name[0] == "[" and int(name[1:-1], 16) % places.PAGE in (0, 8, 16, 24) and one | A == two != one
    }


def task_switch(difference: Difference) -> bool:
    """RIP or ESP of a #TS."""
    if (pair := pair_of(difference)) is None or not only(difference, "rip", "rsp"):
        return False
    ours, theirs = pair
    old, new = ours.rip % places.PAGE, theirs.rip % places.PAGE
    pointers = ours.rsp == theirs.rsp or ours.rsp == theirs.rsp | 0xFFFF_0000
    return ours.vector == Vector.TS and old == new and theirs.rip < places.PAGE and pointers


def real_stack(difference: Difference) -> bool:
    """Memory alone differs, in real mode with a 32-bit stack."""
    if difference.record is not None or any(name[0] != "[" for name in difference.fields):
        return False
    ends = (difference.first.save, difference.second.save)
    return all(not save.cr0 & CR0.PE and save.ss.attributes & Attribute.DB for save in ends)


def table_base(difference: Difference) -> bool:
    """#GP here, with a table whose base is not canonical."""
    ours, end = ours_of(difference, Vector.GP), difference.first.save
    if ours is None or not ours.efer & EFER.LMA:
        return False
    return any((table.base >> 47) not in (0, 0x1_FFFF) for table in (end.idtr, end.gdtr))


def handler_limit(difference: Difference) -> bool:
    """#GP here, of a handler beyond the limit of its segment."""
    ours = ours_of(difference, Vector.GP)
    return ours is not None and bool(ours.exit_int_info & VALID) and ours.error_code <= 1 and not ours.efer & EFER.LMA
