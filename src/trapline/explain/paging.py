"""Why the code at RIP cannot be fetched: the page tables do not map it as they should (APM 5.1-5.8)."""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from trapline.arch.paging import ADDRESS, FETCH, PAGE, PS, RW, US, A, D, P, page_size, table_index
from trapline.arch.registers import CR0, CR4

from . import pages
from .attempt import Attempt, Change, Finding
from .tables import BASES, TABLES, Access, denial, fetch, findings, scratch

_MOV_CR: Final = b"\x0f\x22"
"""MOV to a control register (APM vol. 3, MOV CRn): the register is in bits 5:3 of the next byte."""
_MOV_CR_SIZE: Final = 3


def cause_of_fetch(attempt: Attempt) -> tuple[Finding, Change] | None:
    """Return why the code at RIP cannot be fetched, with the change that proves it; None: it can, or nothing does."""
    access = fetch(attempt)
    if not attempt.save.cr0 & CR0.PG or attempt.save.cpl or access.allowed(attempt) is not None:
        return None
    for finding in chain(_unprotected(attempt), findings(attempt, access), _just_loaded(attempt)):
        for change in finding.changes:
            if access.allowed(attempt.changed(change)) is not None:
                return finding, change
    return None


def unmapped_code(attempt: Attempt) -> str | None:
    """Say what is known of code that cannot be fetched where no cause is proven, in a sentence; None: it can be."""
    if not attempt.save.cr0 & CR0.PG or attempt.save.cpl:
        return None
    why = pages.why(attempt, attempt.rip, FETCH)
    if why is None:
        return None
    return f"the page tables at CR3 {attempt.save.cr3:#x} do not let RIP be fetched: {attempt.rip:#x} is {why}."


def _unprotected(attempt: Attempt) -> Iterator[Finding]:
    """APM vol. 2, 3.1.1: some processors take it."""
    cr0 = attempt.save.cr0
    if not cr0 & CR0.PE:
        yield Finding(
            "CR0.PG, paging, is set without CR0.PE, protected mode: a real processor raises #GP(0) at the mov to CR0, "
            "and this one does not.",
            (Change("with CR0.PE set and CR0.PG clear", {"cr0": cr0 & ~CR0.PG | CR0.PE}),),
        )


def _just_loaded(attempt: Attempt) -> Iterator[Finding]:
    """The instruction before RIP changed the page tables, and they do not map the next one (APM 5.5, 14.6.1)."""
    rip = attempt.rip
    why = pages.why(attempt, rip, FETCH) or "mapped to where there is no memory"
    for base in BASES:
        gpa = rip - base
        if gpa < _MOV_CR_SIZE or gpa >> 40 or attempt.memory.qword(gpa - _MOV_CR_SIZE & ~7) is None:
            continue
        data = attempt.memory.read(gpa - _MOV_CR_SIZE, _MOV_CR_SIZE).to_bytes(_MOV_CR_SIZE, "little")
        if data[:2] != _MOV_CR or data[2] < 0xC0:
            continue
        number, at = data[2] >> 3 & 7, rip - _MOV_CR_SIZE
        if number == 0 and not base:
            cause = (
                f"paging was just turned on, by the mov to CR0 at {at:#x}, and the next instruction, {rip:#x}, is "
                f"{why}: the page tables must map the code that turns paging on at its own address (an identity map)."
            )
        else:
            cause = (
                f"CR{number} was just loaded, by the mov at {at:#x}, and the page tables at CR3 "
                f"{attempt.save.cr3:#x} do not map the next instruction: {rip:#x} is {why}{_table(attempt)}."
            )
        yield Finding(cause, _mapping(attempt, rip, gpa))
        return


def _table(attempt: Attempt) -> str:
    """Say what the table at CR3 is, if it is empty, as the end of a sentence."""
    root = attempt.save.cr3 & ADDRESS
    if any((attempt.memory.qword(root + at) or 0) & P for at in range(0, PAGE, 8)):
        return ""
    name = TABLES[4] if attempt.long else "table"
    return f"; the {name} at {root:#x} has no present entry"


def _mapping(attempt: Attempt, gva: int, gpa: int) -> Iterator[Change]:
    """Yield the change that maps one address to another, in a large page."""
    found = denial(attempt, Access(gva, FETCH))
    if found is None:
        return
    last, text = found.last, f"with {gva:#x} mapped to {gpa:#x}"
    rights = P | RW | US | A | D
    if last.size == 4:
        entry = (gpa & -(PAGE << 10) if last.level == 2 else gpa & -PAGE) | rights | (PS if last.level == 2 else 0)
        registers = {"cr4": attempt.save.cr4 | CR4.PSE}
        yield Change(text, registers, ((last.gpa, entry.to_bytes(4, "little")),))
        return
    level = last.level if last.level < 3 or (attempt.long and last.level == 3) else last.level - 1
    entry = gpa & -page_size(level) | rights | (PS if level > 1 else 0)
    spare = scratch(attempt, found)
    if level == last.level:
        yield Change(text, {}, ((last.gpa, entry.to_bytes(8, "little")),))
    elif spare is not None and level <= 3:
        link = spare | (P | RW | US | A if attempt.long else P)
        at = spare + 8 * table_index(gva, level)
        yield Change(text, {}, ((last.gpa, link.to_bytes(8, "little")), (at, entry.to_bytes(8, "little"))))
