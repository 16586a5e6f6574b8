"""Page tables that are wrong as a whole: each mistake is named, and its repair lets the code be fetched."""

import pytest

from tests.explain.machines import CODE, PDPT, PML4, RAM, STACK, Machine, fault, page_fault
from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN
from trapline.arch.paging import FETCH, NX, PS, RW, A, D, P
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.explain.explain import explain, explain_exception
from trapline.explain.paging import cause_of_fetch, unmapped_code
from trapline.explain.tables import Access, findings

FULL = P | RW | A | D
PD = 0x9000
MOV_CR0, MOV_CR3 = b"\x0f\x22\xc0", b"\x0f\x22\xd8"
LEGACY = {"efer": 0, "cs.attributes": 0xC9B}


def machine(before=b"", **fields):
    """Return a machine whose RIP follows some code."""
    return Machine(before + b"\x90", **{"rip": CODE + len(before), **fields})


def fetched(made):
    """Return the cause that is proven, after a check of the proof; None: none is."""
    attempt = made.attempt(page_fault(0))
    found = cause_of_fetch(attempt)
    if found is None:
        return None
    finding, change = found
    assert attempt.translate(attempt.rip, FETCH) is None or attempt.unbacked(attempt.rip) is not None
    after = attempt.changed(change)
    assert after.translate(after.rip, FETCH) is not None
    return finding.cause


def test_code_that_is_mapped_is_not_explained():
    made = machine(MOV_CR3)
    assert fetched(made) is None
    assert unmapped_code(made.attempt(page_fault(0))) is None


def test_no_identity_map_where_paging_is_turned_on():
    made = machine(MOV_CR0)
    made.put(PML4, 0)
    assert fetched(made) == (
        "paging was just turned on, by the mov to CR0 at 0x6000, and the next instruction, 0x6003, is not mapped: "
        "PML4E is 0x0: the page tables must map the code that turns paging on at its own address (an identity map)."
    )


def test_paging_without_protected_mode():
    made = machine(MOV_CR0, **{**LEGACY, "cr4": 0, "cr0": CR0.PG})
    made.put(PML4, 0)
    assert fetched(made).startswith("CR0.PG, paging, is set without CR0.PE, protected mode: a real processor raises")


@pytest.mark.parametrize(
    ("fields", "entries"),
    [
        ({}, {PDPT: 0}),
        ({}, {PDPT: PD | FULL}),
        ({**LEGACY, "cr4": 0}, {PML4: 0}),
        ({**LEGACY, "cr4": 0}, {PML4: PD | FULL}),
        ({**LEGACY, "cr4": CR4.PAE}, {PML4: 0}),
        ({**LEGACY, "cr4": CR4.PAE}, {PML4: PD | P}),
    ],
)
def test_tables_of_each_kind_can_be_mapped(fields, entries):
    made = machine(MOV_CR3, **fields)
    for gpa, entry in entries.items():
        made.put(gpa, entry)
    assert fetched(made).startswith(
        "CR3 was just loaded, by the mov at 0x6000, and the page tables at CR3 0x1000 do not"
    )


def test_an_empty_table_is_said_to_be_empty():
    made = machine(MOV_CR3, cr3=0xB000)
    assert fetched(made).endswith("not mapped: PML4E is 0x0; the PML4 at 0xb000 has no present entry.")


def test_nothing_is_proven_of_code_that_did_not_change_the_tables():
    made = machine()
    made.put(PML4, 0)
    assert fetched(made) is None
    assert unmapped_code(made.attempt(page_fault(0))) == (
        "the page tables at CR3 0x1000 do not let RIP be fetched: 0x6000 is not mapped: PML4E is 0x0."
    )
    found = explain([made.evidence(page_fault(0), page_fault(0), DOUBLE_FAULT, first_address=CODE)])
    assert found.unproven.startswith("The page tables at CR3 0x1000 do not let RIP be fetched")


def test_a_table_that_is_not_aligned():
    made = machine(cr3=0xA800)
    made.put(0xA800, (0xB800 + FULL))
    made.put(0xB800, PS | FULL)
    assert fetched(made) == (
        "CR3 is 0xa800, which is not aligned to 4096 bytes: the CPU ignores its low bits and reads the PML4 at 0xa000. "
        "There 0x6000 is not mapped: PML4E is 0x0."
    )
    assert fetched(machine(cr3=0xA008)) is None  # no table is there


def test_a_page_directory_that_is_not_aligned():
    made = machine(cr3=0xA800, cr4=CR4.PSE, **LEGACY)
    made.put(0xA800, PS | FULL)
    assert "the CPU ignores its low bits and reads the page directory at 0xa000" in fetched(made)
    made = machine(cr3=0xA810, cr4=CR4.PAE, **LEGACY)
    made.put(0xA810, PD | P)
    made.put(PD, PS | FULL)
    assert "is not aligned to 32 bytes" in fetched(made)


def test_a_linear_address_in_cr3():
    made = machine(cr3=0xC000_0000 + PD, cr4=CR4.PSE, **LEGACY)
    made.put(PD, PS | FULL)
    assert fetched(made) == (
        "CR3 is 0xc0009000, where there is no memory: it takes the physical address of a table, and this is a linear "
        "one."
    )
    assert fetched(machine(cr3=0xD000_0000, cr4=CR4.PSE, **LEGACY)) is None


def test_a_large_page_without_pse():
    made = machine(cr3=PD, cr4=0, **LEGACY)
    made.put(PD, PS | FULL)
    assert fetched(made) == (
        "PDE 0xe3 has PS set, a page of 4 MiB, but CR4.PSE is clear: the CPU takes 0x0 for a page table, and 0x6000 is "
        "not mapped: PTE is 0x0."
    )


def test_tables_of_another_kind_of_paging():
    made = machine(cr3=0xB000, cr4=0, **LEGACY)
    made.put(0xB000, PD | P)
    made.put(PD, PS | FULL)
    assert fetched(made).startswith("CR4.PAE is clear, so that the CPU reads entries of 4 bytes, and the tables at CR3")
    made = machine(cr4=CR4.PAE, **LEGACY)
    made.put(PDPT, 0xB000 | FULL)
    made.put(0xB000, PS | FULL)
    assert fetched(made).startswith("long mode was not enabled before paging: EFER.LME is clear, and the tables at CR3")
    made = machine(cr3=PD, cr4=CR4.PAE | CR4.PSE, **LEGACY)
    made.put(PD, (PS | FULL) | 1 << 32 + 22)
    assert fetched(made).startswith("CR4.PAE is set, so that the CPU reads entries of 8 bytes, and the tables at CR3")


def test_a_level_that_is_missing():
    made = machine(cr3=PD)
    made.put(PD, 0xA000 | FULL)  # a directory pointer table, whose entry leads to a directory
    made.put(0xA000, 0xB000 | FULL)
    made.put(0xB000 + 8 * (CODE >> 12), CODE | FULL)
    assert fetched(made) == (
        "CR3 0x9000 leads to a page-directory-pointer table, where the CPU reads a PML4: a level of the page tables is "
        "missing."
    )


def test_nx_while_nxe_is_clear():
    made = machine(efer=EFER.LME | EFER.LMA)
    made.put(PDPT, NX | PS | FULL)
    attempt = made.attempt(page_fault(9))
    found = next(findings(attempt, Access(STACK, RW)))
    assert found.cause == (
        "PDPE 0x80000000000000e3, which maps 0x8000, has bit 63 (NX) set while EFER.NXE is clear: NX is then one of "
        "the reserved bits, and each access to the page is a page fault."
    )
    assert attempt.changed(found.changes[0]).translate(STACK, RW) == STACK


def test_without_paging_the_tables_are_not_blamed():
    made = machine(cr0=CR0.PE, efer=0, cr3=RAM + 0x1800)
    assert list(findings(made.attempt(page_fault(0)), Access(CODE, FETCH))) == []


def test_the_cause_of_a_fetch_leads():
    made = machine(MOV_CR3, cr3=0xB000, **{"idtr.base": 0, "idtr.limit": 0x3FF})
    chain = [made.evidence(page_fault(0), page_fault(0), SHUTDOWN, first_address=CODE + 3, address=14 * 16)]
    found = explain(chain)
    assert [cause[:20] for cause in found.causes] == ["CR3 was just loaded,", "no handler could be "]
    assert (found.repair, found.effect) == (
        "with 0x6003 mapped to 0x6003", "the instruction at 0x6003 could have been fetched",
    )  # fmt: skip
    assert found.walks[0] == "0x6003: CR3 0xb000, PML4E at 0xb000 is 0x0"
    alone = explain_exception(made.evidence(None, page_fault(0), page_fault(0), address=CODE + 3))
    assert (alone.causes, alone.effect, alone.changes) == (found.causes[:1], found.effect, found.changes)


def test_another_exception_of_code_that_is_mapped_is_not_the_tables():
    made = machine(MOV_CR3)
    found = explain_exception(made.evidence(None, fault(Vector.UD), fault(Vector.UD)))
    assert (found.causes, found.effect, found.walks) == ((), None, ())
