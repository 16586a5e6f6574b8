import pytest

from tests.explain.machines import (
    CODE,
    CODE_0,
    DATA_3,
    GATE,
    GDT,
    IDT,
    PDPT,
    PML4,
    STACK,
    TSS,
    Machine,
    fault,
    page_fault,
)
from trapline.arch.descriptors import GATE_PRESENT
from trapline.arch.events import SHUTDOWN
from trapline.arch.paging import P
from trapline.arch.vectors import Vector
from trapline.explain.memory import PartialMemory
from trapline.explain.pictures import State, draw

UD = fault(Vector.UD)
TASK = {"tr.selector": 0x28, "tr.base": TSS, "tr.limit": 0x67, "tr.attributes": 0x8B}


def drawn(machine, event=UD, **arguments):
    return draw([machine.evidence(event, becomes=SHUTDOWN)], **arguments)


def marks(pictures):
    """Return what is marked as wrong in tables: table, entry, field."""
    return [
        (table.name, entry.label, *(field.name for field in entry.fields if field.wrong))
        for table in pictures.tables
        for entry in table.entries
        if entry.wrong is not None
    ]


def gate(value):
    machine = Machine()
    for vector in (Vector.UD, Vector.DF, Vector.NP, Vector.GP):
        machine.put(IDT + 16 * vector, value)
    return machine


def descriptor(value, **fields):
    machine = Machine(**fields)
    machine.put(GDT + CODE_0, value)
    return machine


NO_UD = ("IDT", "6 #UD")


@pytest.mark.parametrize(
    ("machine", "mark", "state"),
    [
        (gate(GATE & ~GATE_PRESENT), (*NO_UD, "P"), State.ABSENT),
        (gate(GATE ^ 3 << 40), (*NO_UD, "type"), State.WRONG),
        (gate(GATE & ~(0xFFFF << 16)), (*NO_UD, "selector"), State.WRONG),
        (gate(0), NO_UD, State.EMPTY),
        (Machine(**{"idtr.limit": 0x5F}), NO_UD, State.BEYOND),
        (Machine(**{"idtr.base": 1 << 30}), NO_UD, State.UNREADABLE),
        (descriptor(0x00AF_1B00_0000_FFFF), ("GDT", "0x8", "P"), State.WRONG),
        (descriptor(0x00CF_9B00_0000_FFFF), ("GDT", "0x8", "L", "D"), State.WRONG),
        (Machine(**{"gdtr.limit": 7}), ("GDT", "0x8"), State.BEYOND),
    ],
)
def test_what_was_wrong_is_marked(machine, mark, state):
    pictures = drawn(machine)
    assert mark in marks(pictures)
    (entry,) = (entry for table in pictures.tables for entry in table.entries if (table.name, entry.label) == mark[:2])
    assert entry.state is state
    assert "#UD" in entry.used


def test_a_delivery_that_succeeds_has_no_mark_and_a_frame():
    pictures = drawn(Machine())
    assert not marks(pictures)
    (stack,) = pictures.stacks
    assert (stack.name, stack.event, stack.failed) == ("RSP", "#UD", None)
    frame = [(row.text, row.value) for row in stack.rows if row.pushed]
    assert frame[1:] == [("RSP", STACK), ("RFLAGS", 0x1_0002), ("CS", CODE_0), ("RIP", CODE)]
    assert [row.address for row in stack.rows] == sorted((row.address for row in stack.rows), reverse=True)


def test_the_stack_of_the_tss_that_was_taken_is_marked():
    machine = Machine(cpl=3, **TASK)
    machine.put(TSS + 4, 1 << 47)
    pictures = drawn(machine)
    assert ("TSS", "RSP0") in marks(pictures)
    assert pictures.tables[-1].entries[0].text == "0x800000000000, not canonical"
    assert pictures.tables[-1].entries[0].used == ("#UD", "#SS", "#DF")


def test_a_push_to_no_page_has_its_walk_and_its_rows_marked():
    pictures = drawn(Machine(rsp=3 << 30))
    (walk,) = pictures.walks
    assert (walk.address, walk.access, walk.entries[-1].wrong) == ((3 << 30) - 8, "write, supervisor", True)
    (stack,) = pictures.stacks
    assert stack.failed.startswith("the stack cannot be written")
    assert all(row.wrong == "not mapped: PDPE is 0x0" for row in stack.rows)


def test_an_entry_that_denies_is_marked():
    machine = Machine()
    machine.put(PML4 + 8, PDPT | P)
    pictures = draw([machine.evidence(None, page_fault(3), address=1 << 39, becomes=page_fault(3))], chained=False)
    (walk,) = pictures.walks
    assert [(entry.name, entry.place, entry.wrong) for entry in walk.entries] == [
        ("PML4E", 1, True),
        ("PDPE", 0, False),
    ]
    assert [field.name for field in walk.entries[0].flags if field.wrong] == ["R/W"]
    assert not pictures.tables
    assert pictures.stacks[0].event == ""


def test_real_mode_has_vectors_instead_of_gates():
    machine = Machine(cr0=0, cr4=0, efer=0, **{"idtr.base": 0, "idtr.limit": 0x3FF, "cs.attributes": 0x9B})
    machine.put(0x18, 0xF000_1234)
    pictures = drawn(machine)
    (table,) = pictures.tables
    assert table.entries[6].text == "0xf000:0x1234"
    assert [row.text for row in pictures.stacks[0].rows if row.pushed] == ["FLAGS", "CS", "IP"]


def test_what_the_evidence_lacks_is_said():
    evidence = Machine(**TASK).evidence(UD, becomes=SHUTDOWN)
    pictures = draw([evidence._replace(memory=PartialMemory())])
    assert not pictures.tables
    full = draw([evidence])
    kept = {gpa: value for gpa, value in evidence.memory.qwords.items() if not IDT <= gpa < IDT + 16}
    lacking = draw([evidence._replace(memory=PartialMemory(kept))])
    assert lacking.tables[0].entries[0].state is State.UNKNOWN
    assert lacking.tables[0].entries[1:] == full.tables[0].entries[1:]


def test_handlers_have_their_names():
    pictures = drawn(Machine(), name=lambda address: "on_fault" if address == CODE else None)
    assert pictures.tables[0].entries[0].text == f"interrupt gate {CODE_0:#x}:{CODE:#x} on_fault, DPL 0"


def test_a_descriptor_of_the_wrong_kind_is_told():
    machine = gate(GATE & ~(0xFFFF << 16) | DATA_3 << 16)
    assert ("GDT", "0x20", "type") in marks(drawn(machine))


def test_the_base_of_a_tss_in_long_mode_has_64_bits():
    machine = Machine(**{"gdtr.limit": 0x37})
    machine.put(GDT + 0x28, 0x89 << 40 | 0x3000 << 16 | 0x67, 0xFFFF_FE00)
    entries = drawn(machine).tables[1].entries
    assert entries[5].text == "a TSS of DPL 0, base 0xfffffe0000003000, limit 0x67"
    assert entries[6].text == "upper half of 0x28"
