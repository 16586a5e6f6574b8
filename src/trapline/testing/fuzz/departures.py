"""Differences between Unicorn and QEMU that are not ours: each with its proof and a rule that recognises it."""

from collections.abc import Callable
from typing import Final, NamedTuple

from trapline.arch.events import VALID, EventType, decode
from trapline.arch.paging import A
from trapline.arch.registers import EFER, RFLAGS
from trapline.arch.vectors import Vector
from trapline.machine.record import Record, RecordFlags

from . import places
from .compare import Difference


class Departure(NamedTuple):
    """Something that a processor does otherwise than the manual."""

    name: str
    proof: str
    """The place in the source of QEMU 7.2 or Unicorn 2.1.4 (QEMU 5.0.1), or the section of the manual."""
    matches: Callable[[Difference], bool]
    """Whether a difference between Unicorn (first) and QEMU (second) is this one."""


def _only(difference: Difference, *names: str) -> bool:
    return difference.fields.keys() <= set(names)


def _ext(difference: Difference) -> bool:
    if (
        difference.record is None
        or not _only(difference, "error_code", "event")
        or "error_code" not in difference.fields
    ):
        return False
    ours, theirs = difference.fields["error_code"]
    vectoring = decode(difference.first.records[difference.record].exit_int_info)
    return ours == theirs | 1 and vectoring is not None and vectoring.type != EventType.SOFT


def _idt_code(difference: Difference) -> bool:
    if (
        difference.record is None
        or not _only(difference, "error_code", "event")
        or "error_code" not in difference.fields
    ):
        return False
    ours, theirs = difference.fields["error_code"]
    vectoring = decode(difference.first.records[difference.record].exit_int_info)
    return vectoring is not None and theirs == vectoring.vector * 16 + 2 and ours | 1 == vectoring.vector * 8 + 3


_PDPT: Final = {f"[{places.TABLES + 8 * index:#x}]" for index in range(4)}


def _pdpt(difference: Difference) -> bool:
    return difference.fields.keys() <= _PDPT and all(one ^ two == A for one, two in difference.fields.values())


def _records(difference: Difference) -> tuple[Record, Record] | None:
    number = difference.record
    if number is None or number >= min(len(difference.first.records), len(difference.second.records)):
        return None
    return difference.first.records[number], difference.second.records[number]


def _reserved(difference: Difference) -> bool:
    if not _only(difference, "error_code", "event") or (pair := _records(difference)) is None:
        return False
    ours, theirs = pair
    return ours.vector == Vector.PF and bool(theirs.error_code & _RSV) and ours.error_code == theirs.error_code | 1


def _fetch_ahead(difference: Difference) -> bool:
    if (pair := _records(difference)) is None or pair[0].vector != Vector.PF:
        return False
    ours, theirs = pair
    start, end = ours.cs_base + ours.rip, ours.address
    return end % places.PAGE == 0 and 0 < end - start <= places.PAGE and start <= theirs.cs_base + theirs.rip <= end


def _opcode(difference: Difference, record: Record) -> tuple[bytes, bytes]:
    """Return the prefixes of the instruction that raised an exception, and what follows them."""
    at = record.cs_base + record.rip
    text = difference.first.memory[at : at + 15]
    rest = text.lstrip(_PREFIXES)
    if record.efer & EFER.LMA:
        rest = rest[1:] if rest[:1] and rest[0] & 0xF0 == 0x40 else rest
    return text[: len(text) - len(rest)], rest


def _string_input(difference: Difference) -> bool:
    if (pair := _records(difference)) is None:
        return False
    ours, theirs = pair
    if (ours.vector, theirs.vector, theirs.error_code) != (Vector.PF, Vector.GP, 0) or ours.rip != theirs.rip:
        return False
    return _opcode(difference, theirs)[1][:1] in (b"\x6c", b"\x6d", b"\x6e", b"\x6f")


def _theirs(difference: Difference, vector: Vector) -> Record | None:
    """Return QEMU's record where Unicorn's differs or is not there, if it is of this vector."""
    number, records = difference.record, difference.second.records
    if number is None or number >= len(records) or records[number].vector != vector:
        return None
    return records[number]


def _alignment(difference: Difference) -> bool:
    theirs = _theirs(difference, Vector.GP)
    if theirs is None or theirs.error_code or theirs.exit_int_info & VALID:
        return False
    prefixes, text = _opcode(difference, theirs)
    if len(text) < 3 or text[0] != 0x0F or text[2] >= 0xC0:
        return False
    scalar = b"\xf2" in prefixes or b"\xf3" in prefixes
    return text[1] in _ALIGNED and not scalar and (text[1] < 0x60 or b"\x66" in prefixes)


def _cr4(difference: Difference) -> bool:
    theirs = _theirs(difference, Vector.GP)
    return theirs is not None and _opcode(difference, theirs)[1][:3] == b"\x0f\x22\xe0"


def _stack_address(difference: Difference) -> bool:
    if (pair := _records(difference)) is None or not pair[0].efer & EFER.LMA:
        return False
    ours, theirs = pair
    return (ours.vector, theirs.vector, theirs.error_code) == (Vector.SS, Vector.GP, 0) and bool(
        ours.exit_int_info & VALID
    )


def _handler_address(difference: Difference) -> bool:
    if (pair := _records(difference)) is None or not pair[0].efer & EFER.LMA:
        return False
    ours, theirs = pair
    canonical = theirs.rip >> 47 in (0, (1 << 17) - 1)
    return ours.vector == theirs.vector == Vector.GP and bool(ours.exit_int_info & VALID) and not canonical


def _accessed(difference: Difference) -> bool:
    def known(name: str) -> bool:
        if name.endswith(".attributes"):
            return True
        at = int(name[1:-1], 16) if name.startswith("[") else 0
        return at % 8 == 5 and (places.GDT <= at < places.LDT + places.PAGE)

    return difference.record is None and all(
        known(name) and one ^ two == 1 for name, (one, two) in difference.fields.items()
    )


def _ours(difference: Difference, vector: Vector) -> Record | None:
    """Return Unicorn's record where QEMU's differs or is not there, if it is of this vector."""
    number, records = difference.record, difference.first.records
    if number is None or number >= len(records) or records[number].vector != vector:
        return None
    return records[number]


def _efer(difference: Difference) -> bool:
    ours = _ours(difference, Vector.GP)
    return (
        ours is not None
        and bool(ours.flags & RecordFlags.SYNTHESIZED)
        and _opcode(difference, ours)[1][:2] == b"\x0f\x30"
    )


def _group_11(difference: Difference) -> bool:
    ours = _ours(difference, Vector.UD)
    if ours is None:
        return False
    text = _opcode(difference, ours)[1]
    return text[:1] in (b"\xc6", b"\xc7") and bool(text[1] & 0x38)


def _resume(difference: Difference) -> bool:
    if _only(difference, "rflags"):
        ours, theirs = difference.fields["rflags"]
        return ours == theirs | RFLAGS.RF
    if difference.record is not None or len(difference.fields) != 1:
        return False
    ((name, (ours, theirs)),) = difference.fields.items()  # the third byte of the flags that the end pushed
    return name.startswith("[") and int(name[1:-1], 16) % 2 == 0 and ours == theirs | RFLAGS.RF >> 16


def _stack_limit(difference: Difference) -> bool:
    ours = _ours(difference, Vector.SS)
    return ours is not None and bool(ours.exit_int_info & VALID) and not ours.efer & EFER.LMA


def _inner_ring(difference: Difference) -> bool:
    ours = _ours(difference, Vector.GP)
    if ours is None or not ours.exit_int_info & VALID or not ours.rflags & RFLAGS.VM:
        return False
    number = difference.record
    later = (
        difference.second.records[number] if number is not None and number < len(difference.second.records) else None
    )
    return later is not None and later.cpl in (1, 2)


def _narrow_gate(difference: Difference) -> bool:
    theirs = _theirs(difference, Vector.PF)
    return (
        theirs is not None
        and difference.program.mode == "pm16"
        and "gate" in difference.program.mutations
        and theirs.rip >> 16 != 0
        and theirs.cs_base + theirs.rip == theirs.address
    )


def _sysenter(difference: Difference) -> bool:
    return _only(difference, "cs.attributes") and difference.fields["cs.attributes"] == (0xA9B, 0xE9B)


_PREFIXES: Final = b"\x66\x67\xf0\xf2\xf3\x26\x2e\x36\x3e\x64\x65"
_ALIGNED: Final = frozenset((0x28, 0x29, 0x2B, 0xE7, *range(0x51, 0x70), *range(0x7F, 0x80), *range(0xD0, 0xFF))) - {
    0x5A,
    0x6E,
    0xD6,
}
"""Second opcode bytes of SSE instructions whose 16 bytes in memory must be aligned."""
_RSV: Final = 1 << 3

DEPARTURES: Final = (
    Departure("EXT", "QEMU: error codes have EXT clear: seg_helper.c, do_interrupt_protected, do_interrupt64", _ext),
    Departure("IDT code", "QEMU: in long mode the code is vector * 16 + 2: seg_helper.c, do_interrupt64", _idt_code),
    Departure(
        "fetch ahead",
        "Unicorn: a block that runs into a page that is not there faults before it begins, with RIP at its start: "
        "translate.c, i386_tr_translate_insn, which stops at the end of a page with CF_USE_ICOUNT only",
        _fetch_ahead,
    ),
    Departure(
        "INS",
        "Unicorn: INS and OUTS touch memory before their port is looked at: translate.c, gen_ins, gen_outs",
        _string_input,
    ),
    Departure("reserved", "QEMU: the fault of a reserved bit has P clear: excp_helper.c, do_fault_rsvd", _reserved),
    Departure("accessed", "QEMU: descriptors keep their accessed bit clear: seg_helper.c, load_segment", _accessed),
    Departure(
        "handler address", "QEMU: the handler's address may be any: seg_helper.c, do_interrupt64", _handler_address
    ),
    Departure(
        "stack address",
        "QEMU: a push that is not canonical raises #GP: excp_helper.c, get_physical_address",
        _stack_address,
    ),
    Departure(
        "SSE alignment",
        "Unicorn: operands of 16 bytes need not be aligned: translate.c, gen_sse, gen_ldo_env_A0 (APM vol. 1, 4.3.2)",
        _alignment,
    ),
    Departure("CR4", "Unicorn: reserved bits of CR4 are dropped: helper.c, cpu_x86_update_cr4 (APM 3.1.3)", _cr4),
    Departure("EFER", "QEMU: bits that EFER lacks are dropped: misc_helper.c, helper_wrmsr (APM 3.1.7)", _efer),
    Departure(
        "C6 and C7", "QEMU: MOV is taken for all of its group: translate.c, case 0xc6 (APM vol. 3, A-6)", _group_11
    ),
    Departure(
        "RF", "Unicorn: a jump leaves RF set: translate.c, i386_tr_init_disas_context, jmp_opt (APM 3.1.6)", _resume
    ),
    Departure("stack limit", "QEMU: no limit of a stack is checked: seg_helper.c, PUSHW_RA and PUSHL_RA", _stack_limit),
    Departure(
        "virtual-8086", "QEMU: v86 mode may be left to ring 1 or 2: seg_helper.c, do_interrupt_protected", _inner_ring
    ),
    Departure(
        "narrow gate", "QEMU: a 16-bit gate has 32 bits of offset: seg_helper.c, do_interrupt_protected", _narrow_gate
    ),
    Departure(
        "SYSENTER", "QEMU: 64-bit code gets D as well as L: seg_helper.c, helper_sysenter (APM vol. 3)", _sysenter
    ),
    Departure("PDPT", "QEMU: a PAE walk marks its first entry accessed: excp_helper.c, mmu_translate", _pdpt),
)


def departure(difference: Difference) -> str | None:
    """Return the name of a known departure, or None."""
    if difference.record is None:
        rest = {name: values for name, values in difference.fields.items() if name not in _PDPT}
        difference = difference._replace(fields=rest or difference.fields)
    return next((row.name for row in DEPARTURES if row.matches(difference)), None)
