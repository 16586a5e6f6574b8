import pytest

from tests.explain.machines import CODE, PDPT, PML4, Machine, fault
from trapline.arch.paging import FETCH, NX, PS, READ, RW, US, USER, WRITE, A, D, NotMapped, P
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import Vector
from trapline.explain import pages

FULL = P | RW | US | A | D
PD, PT = 0x9000, 0xA000
GVA = 0xB000
INDEX = GVA >> 12


def machine(pml4=FULL, pdpe=FULL, pde=FULL, pte=FULL, **fields):
    """Return a machine whose page at GVA is reached through four tables with these bits."""
    made = Machine(**fields)
    made.put(PML4, PDPT | pml4)
    made.put(PDPT, PD | pdpe)
    made.put(PD, PT | pde)
    for number in range(512):
        made.put(PT + 8 * number, number << 12 | FULL)
    made.put(PT + 8 * INDEX, GVA | pte)
    return made


def pae(pte, pde=FULL):
    """Return the same for three tables."""
    made = machine(pdpe=0, pde=pde, pte=pte, cr3=PDPT, efer=EFER.NXE, cr4=CR4.PAE)
    made.put(PDPT, PD | P)
    return made


def narrow(pte, pde=FULL):
    """Return the same for two tables of 32-bit entries."""
    made = Machine(cr3=PD, efer=0, cr4=0)
    made.put(PD, PT | pde)
    for number in range(0, 512, 2):
        made.put(PT + 4 * number, number << 12 | FULL | (number + 1 << 12 | FULL) << 32)
    at = PT + 4 * INDEX
    made.memory[at : at + 4] = (GVA | pte).to_bytes(4, "little")
    return made


ROWS = [
    (machine(pte=0), READ, "not mapped: PTE is 0xb000", "PTE 0xb001, present"),
    (machine(pde=0), READ, "not mapped: PDE is 0xa000", "PDE 0xa001, present"),
    (machine(pml4=0), READ, "not mapped: PML4E is 0x2000", "PML4E 0x2001, present"),
    (machine(pte=FULL & ~RW), WRITE, "not writable: PTE R/W=0", "PTE 0xb067, writable"),
    (machine(pde=FULL & ~RW), WRITE, "not writable: PDE R/W=0", "PDE 0xa067, writable"),
    (machine(pml4=FULL & ~RW, pte=FULL & ~RW), WRITE, "not writable: PML4E and PTE R/W=0", None),
    (machine(pdpe=FULL & ~US), READ | USER, "a supervisor page: PDPE U/S=0", "PDPE 0x9067, a user page"),
    (machine(pte=FULL | NX), FETCH, "not executable: PTE NX=1", "PTE 0xb067, executable"),
    (machine(pml4=FULL | NX), FETCH, "not executable: PML4E NX=1", "PML4E 0x2067, executable"),
    (
        machine(pte=FULL | 1 << 50),
        READ,
        "mapped with reserved bits: PTE 0x400000000b067 has 0x4000000000000 set",
        "PTE 0xb067, without its reserved bits",
    ),
    (
        machine(cr4=CR4.PAE | CR4.SMEP),
        FETCH,
        "a user page, which SMEP does not let the supervisor execute",
        "PTE 0xb063, a supervisor page",
    ),
    (
        machine(cr4=CR4.PAE | CR4.SMAP),
        WRITE,
        "a user page, which SMAP does not let the supervisor access",
        "PTE 0xb063, a supervisor page",
    ),
    (pae(FULL & ~RW), WRITE, "not writable: PTE R/W=0", "PTE 0xb067, writable"),
    (pae(FULL, pde=FULL & ~US), READ | USER, "a supervisor page: PDE U/S=0", "PDE 0xa067, a user page"),
    (narrow(FULL & ~RW), WRITE, "not writable: PTE R/W=0", "PTE 0xb067, writable"),
    (narrow(FULL, pde=0), READ, "not mapped: PDE is 0xa000", "PDE 0xa001, present"),
]


@pytest.mark.parametrize(("made", "access", "why", "change"), ROWS)
def test_the_entry_that_denies_an_access_is_named_and_changed(made, access, why, change):
    attempt = made.attempt(fault(Vector.UD))
    assert pages.why(attempt, GVA + 8, access) == why
    found = pages.mapped(attempt, GVA + 8, access)
    assert (None if found is None else found.text) == change
    if found is not None:
        assert attempt.changed(found).translate(GVA + 8, access) == GVA + 8
        assert attempt.translate(GVA + 8, access) is None


def test_an_access_that_is_allowed():
    attempt = machine().attempt(fault(Vector.UD))
    assert pages.why(attempt, GVA, WRITE | USER) is None
    assert pages.mapped(attempt, GVA, WRITE | USER) is None


def test_rflags_ac_allows_what_smap_denies():
    attempt = machine(cr4=CR4.PAE | CR4.SMAP).attempt(fault(Vector.UD))
    assert pages.why(attempt, GVA, READ, True) is None


def test_an_address_that_is_not_canonical():
    attempt = machine().attempt(fault(Vector.UD))
    assert pages.why(attempt, 1 << 47, READ) == "not a canonical address"
    assert pages.mapped(attempt, 1 << 47, READ) is None
    with pytest.raises(NotMapped):
        pages.denial(attempt, 1 << 47, READ)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (PT + 8 * INDEX, "PTE 0x63, present"),
        (PD, "PDE 0xe3, present"),
        (PDPT, "PDPE 0xe3, present"),
        (PML4, None),  # it would take a table
    ],
)
def test_an_entry_of_zero_gets_a_page_if_nothing_is_read_from_it(entry, text):
    made = machine()
    made.put(entry, 0)
    attempt = made.attempt(fault(Vector.UD))
    found = pages.mapped(attempt, GVA, WRITE)
    assert (None if found is None else found.text) == text
    assert pages.mapped(attempt, GVA, WRITE, empty=False) is None


def test_pages_are_not_asked_without_paging():
    attempt = Machine(cr0=CR0.PE, efer=0, cr4=0).attempt(fault(Vector.UD))
    assert pages.why(attempt, CODE, WRITE | USER) is None


def test_the_large_page_of_a_machine_is_one():
    made = Machine()
    made.put(PDPT, A | D | PS | P)
    assert pages.why(made.attempt(fault(Vector.UD)), CODE, WRITE) == "not writable: PDPE R/W=0"
