"""What is wrong with the state in which an exception was raised, whatever the exception is."""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

from trapline.arch.descriptors import REAL_IDT_LIMIT, TSS_SIZE, Attribute, Selector, attributes
from trapline.arch.error_codes import SELECTOR_IDT, SELECTOR_LDT
from trapline.arch.paging import FETCH, PAGE
from trapline.arch.registers import CR0, EFER, RFLAGS
from trapline.arch.vectors import VECTORS, Vector, mnemonic
from trapline.machine.linear import stack_address

from . import pages
from .callers import caller
from .instruction import Instruction
from .stack_use import ist_in_use, red_zone

_ENTRIES: Final = 16
"""How many descriptors of the GDT are tried."""
_ZEROS: Final = 16
"""The fewest bytes of zeros that are not taken for code."""
_SLIDE: Final = 2048
"""How many bytes before RIP are searched for the start of the zeros."""
_REX_W: Final = range(0x48, 0x50)
"""Prefixes of 64-bit code, DEC in other code (APM vol. 3, 1.2.7)."""
_AFTER_REX: Final = frozenset((0x01, 0x03, 0x0F, 0x29, 0x2B, 0x31, 0x39, 0x3B, 0x63, 0x81, 0x83, 0x85, 0x89, 0x8B, 0x8D,
                               0xB8, 0xB9, 0xBA, 0xBB, 0xBE, 0xBF, 0xC7, 0xF7, 0xFF))  # fmt: skip
"""Opcodes that often follow one."""
_SEEN: Final = 16
"""Bytes before and after RIP in which they are counted, each pair once: a table of vectors has one again and again."""
_MANY: Final = 2
_VECTORS: Final = 256
_WHOLE: Final = 0xFFFF
"""A limit that says nothing of a table's size."""


def remarks(i: Instruction) -> list[str]:
    """Return what is wrong with the state, the most decisive first."""
    return [told for rule in _RULES if (told := rule(i)) is not None]


def strays(i: Instruction) -> list[str]:
    """Return what is wrong with where a CPU is, and with its stack, without an exception."""
    return [f"{told[0].upper()}{told[1:]}." for rule in _ANYWHERE if (told := rule(i)) is not None]


def _selector(i: Instruction) -> int:
    """Return the error code if it has a selector (APM vol. 2, 8.4.1); else 0."""
    code = i.attempt.event.error_code or 0
    has_selector = i.attempt.event.vector in (Vector.TS, Vector.NP, Vector.SS, Vector.GP)
    return code if has_selector and code & Selector.REFERENCE else 0


def _no_far_jump(i: Instruction) -> str | None:
    """CS keeps what real mode left in it until it is loaded (APM vol. 2, 4.3, 14.4)."""
    save = i.attempt.save
    cs, real_attributes = save.cs, not save.cs.attributes & (Attribute.L | Attribute.DB)
    if i.is_far or _selector(i):
        return None
    if i.attempt.real or save.rflags & RFLAGS.VM or save.efer & EFER.LMA or not real_attributes:
        return None
    descriptor = i.attempt.descriptor(cs.selector)
    loaded = descriptor is not None and attributes(descriptor) & (Attribute.CODE | Attribute.S | Attribute.P)
    if cs.base != cs.selector << 4 or loaded == Attribute.CODE | Attribute.S | Attribute.P:
        return None
    return (
        f"CR0.PE was set without a far jump: CS {cs.selector:#x} (base {cs.base:#x}, 16-bit code) is still that of "
        "real mode"
    )


def _no_descriptors(i: Instruction) -> str | None:
    """LGDT of something else than the operand for it (APM vol. 2, 4.6.1): a selector finds no descriptor."""
    attempt, gdtr = i.attempt, i.attempt.save.gdtr
    if attempt.real or not _selector(i) or _selector(i) & (SELECTOR_IDT | SELECTOR_LDT):
        return None
    wanted = Attribute.P | Attribute.S
    entries = [attempt.descriptor(selector) for selector in range(8, 8 * _ENTRIES, 8)]
    if any(entry is not None and attributes(entry) & wanted == wanted for entry in entries):
        return None
    return (
        f"GDTR has base {gdtr.base:#x} and limit {gdtr.limit:#x}, where there is not one descriptor of code or data: "
        "that is not a GDT, and LGDT may have read its operand through another segment or address"
    )


def _wide_code(i: Instruction) -> str | None:
    """64-bit code that the CPU executes as 32-bit code (APM vol. 2, 4.8.1, 14.6)."""
    attempt, save = i.attempt, i.attempt.save
    if i.bits != 32 or attempt.real:
        return None
    start = attempt.rip - _SEEN
    code = attempt.read(start & attempt.space.mask, 2 * _SEEN)
    if code is None:
        return None
    data = code.to_bytes(2 * _SEEN, "little")
    found = {(first, second) for first, second in pairwise(data) if first in _REX_W and second in _AFTER_REX}
    if len(found) < _MANY:
        return None
    if save.efer & EFER.LMA:
        return f"the code looks like 64-bit code, and CS {save.cs.selector:#x} is 32-bit code: its descriptor lacks L"
    why = "paging is off" if not save.cr0 & CR0.PG else "EFER.LME was not set before paging"
    return f"the code looks like 64-bit code, and long mode is not active: {why}"


def _zeros(i: Instruction) -> str | None:
    """Execution of memory that nothing was loaded into: zeros are ADD [RAX], AL."""
    attempt = i.attempt
    fetched = attempt.translate(attempt.rip, FETCH) is not None
    if attempt.read(attempt.rip if fetched else attempt.rip - _ZEROS & attempt.space.mask, _ZEROS) != 0:
        return None
    start = attempt.rip
    while start > attempt.rip - _SLIDE and attempt.read(start - 8 & attempt.space.mask, 8) == 0:
        start -= 8
    slid = f"{'at least ' if attempt.rip - start >= _SLIDE else ''}{attempt.rip - start} bytes of them"
    call = caller(attempt)
    came = "" if call is None else f"; the last call on the stack is at {i.place(call)}"
    if not fetched:
        return f"execution ran through zeros to there, {slid}{came}"
    return (
        f"the code at RIP is zeros, {slid} before it: nothing was loaded there, or execution ran out of the code{came}"
    )


def _in_tables(i: Instruction) -> str | None:
    """The stack or the IDT in a page table."""
    attempt, save = i.attempt, i.attempt.save
    if not save.cr0 & CR0.PG:
        return None
    top = stack_address(save)
    used = {table for gva in (attempt.rip, top) for table in pages.tables(attempt, gva)}
    for name, gva, place in (("stack", top, top - 1), ("IDT", save.idtr.base, save.idtr.base)):
        gpa = attempt.translate(place)
        if gpa is not None and gpa & -PAGE in used:
            return f"the {name}, at {gva:#x}, is inside the page tables: {gpa & -PAGE:#x} is one of them"
    return None


def _in_descriptors(i: Instruction) -> str | None:
    """The stack in a table of descriptors, or in the TSS. Many set limits that are far beyond what a table has."""
    attempt, save = i.attempt, i.attempt.save
    top = stack_address(save)
    tables = [("IDT", save.idtr, _VECTORS * attempt.gate_size)]
    if attempt.real:
        tables = [("vector table (IVT)", save.idtr, REAL_IDT_LIMIT + 1)]
    elif save.gdtr.limit < _WHOLE:
        tables.append(("GDT", save.gdtr, _WHOLE))
    if not attempt.real and save.tr.selector & Selector.REFERENCE:
        tables.append(("TSS", save.tr, TSS_SIZE))
    for name, table, most in tables:
        if table.limit >= 7 and table.base + 8 <= top <= table.base + min(table.limit, most - 1):
            return f"the stack, at {top:#x}, is inside the {name}, which begins at {table.base:#x}"
    return None


def _in_code(i: Instruction) -> str | None:
    """The stack in a function: it was too small, or its top is wrong. One that is reserved there has its own name."""
    top = stack_address(i.attempt.save)
    name = None if i.namer is None or i.attempt.save.cpl else i.namer(top - 1)  # where the next push ends
    if name is None or "stack" in name.lower():
        return None
    return f"the stack, at {top:#x}, is inside the code of {name}: what is pushed overwrites it"


def _handler(i: Instruction) -> str | None:
    """The start of a handler that is not code: its address in the gate is wrong (APM vol. 2, 4.8.3)."""
    attempt = i.attempt
    if attempt.real or (attempt.translate(attempt.rip, FETCH) is not None and attempt.read(attempt.rip, _ZEROS)):
        return None
    vector = next((vector for vector in range(len(VECTORS)) if attempt.entry_point(vector) == attempt.rip), None)
    return None if vector is None else f"RIP is the handler in IDT entry {vector} ({mnemonic(vector)})"


def _outside(i: Instruction) -> str | None:
    """A call to where the symbols have nothing."""
    call = caller(i.attempt)  # also without names: evidence is captured without them, and explained with them
    if call is None or i.attempt.save.cpl or i.attempt.event.vector == Vector.PF or i.namer is None:
        return None
    if i.namer(i.attempt.rip) is not None or i.namer(call) is None:
        return None
    return f"RIP is outside of all that has a symbol; it was called at {i.place(call)}"


_RULES: Final[tuple[Callable[[Instruction], str | None], ...]] = (
    _no_far_jump, _no_descriptors, _wide_code, _zeros, _in_tables, _in_descriptors, _in_code, _handler, _outside,
    ist_in_use, red_zone,
)  # fmt: skip
_ANYWHERE: Final = (_zeros, _in_tables, _in_descriptors, _in_code)
"""Those that do not need an exception."""
