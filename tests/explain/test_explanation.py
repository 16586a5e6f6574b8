import pytest

from tests.explain.machines import CODE, CODE_3, DATA_3, GATE, GDT, IDT, STACK, TSS, Machine, fault, page_fault
from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType
from trapline.arch.paging import PAGE
from trapline.arch.vectors import Vector
from trapline.explain import repairs
from trapline.explain.evidence import set_field
from trapline.explain.explain import explain, explain_delivered, explain_exception
from trapline.explain.explanation import Delivery, Explanation, Origin
from trapline.explain.memory import PartialMemory

UD, GP, NP = fault(Vector.UD), fault(Vector.GP, 0x33), fault(Vector.NP, 0x33)
ABSENT = GATE & ~(1 << 47)


def machine(**gates):
    """Return a machine that executes UD2, with other gates for some vectors."""
    made = Machine(b"\x0f\x0b")
    for name, gate in gates.items():
        made.put(IDT + 16 * Vector[name], gate)
    return made


def test_the_whole_chain_is_told():
    made = machine(UD=ABSENT, NP=ABSENT, DF=ABSENT)
    second, third = fault(Vector.NP, 0x5B), fault(Vector.NP, 0x43)
    chain = [
        made.evidence(UD, NP, NP),
        made.evidence(NP, second, DOUBLE_FAULT),
        made.evidence(DOUBLE_FAULT, third, SHUTDOWN),
    ]
    found = explain(chain, name={CODE: "main+0x2"}.get, disassemble=lambda code, address, bits: code[:2].hex())
    assert str(found).splitlines() == [
        "  #UD at 0008:0000000000006000 main+0x2, CPL 0, 64-bit mode: 0f0b",
        "     ud2 always raises #UD",
        "  -> delivering #UD: IDT entry 6 is not present -> #NP(0x33)",
        "  -> delivering #NP(0x33): IDT entry 11 is not present -> #NP(0x5b) -> #DF",
        "  -> delivering #DF: IDT entry 8 is not present -> #NP(0x43)",
        "  -> shutdown",
        "Cause: IDT entry 6 (#UD) is not present: its P bit is clear.",
        "With the P bit of the gate set, #UD would have been delivered.",
    ]
    assert found.causes == ("IDT entry 6 (#UD) is not present: its P bit is clear.",)
    assert found.cause == found.causes[0]
    assert found.repair == "with the P bit of the gate set"
    assert found.to_json() == {
        "origin": {
            "event": "#UD", "cpl": 0, "cs": 8, "rip": "0x6000", "bits": 64, "symbol": "main+0x2",
            "instruction": "0f0b", "reason": "ud2 always raises #UD", "mode": "64-bit mode",
        },
        "deliveries": [
            {
                "event": event, "failure": f"IDT entry {entry} is not present", "section": "8.2.12", "raised": raised,
                "combined": combined, "handler": None, "observed": None,
            }
            for event, entry, raised, combined in (
                ("#UD", 6, "#NP(0x33)", None), ("#NP(0x33)", 11, "#NP(0x5b)", "#DF"), ("#DF", 8, "#NP(0x43)", None),
            )
        ],
        "ending": "shutdown",
        "causes": ["IDT entry 6 (#UD) is not present: its P bit is clear."],
        "repair": "with the P bit of the gate set",
        "effect": "#UD would have been delivered",
        "unproven": None,
        "walks": [],
        "at_end": False,
    }  # fmt: skip


def test_a_double_fault_that_is_delivered():
    found = explain([machine(UD=ABSENT, NP=ABSENT).evidence(UD, NP, NP)])
    assert [each.handler for each in found.deliveries] == [None, None, CODE]
    assert str(found.deliveries[-1]) == "delivering #DF: the handler at 0x6000 starts"
    assert found.deliveries[-1].to_json()["handler"] == "0x6000"
    assert found.outcome == "#NP(0x33)"


@pytest.mark.parametrize(
    ("made", "event", "told"),
    [
        (machine(), GP, "delivering #UD: no check fails in the model, but the processor raised #GP(0x33)"),
        (machine(), None, "delivering #UD: no check fails in the model, but the processor shut down"),
        (machine(UD=ABSENT), GP, "delivering #UD: IDT entry 6 is not present, but the processor raised #GP(0x33)"),
        (machine(UD=ABSENT), None, "delivering #UD: IDT entry 6 is not present, but the processor shut down"),
    ],
)
def test_without_the_same_result_as_the_processor_nothing_is_proven(made, event, told):
    found = explain([made.evidence(UD, event, SHUTDOWN)])
    assert [str(each) for each in found.deliveries] == [told]
    assert (found.causes, found.changes, found.repair) == ((), (), None)
    assert found.unproven == found.cause == "The processor and the model of delivery disagree."


def test_a_page_fault_at_another_address_is_another_result():
    made = Machine(b"\x0f\x0b", rsp=1 << 40)
    for address, observed in ((5, page_fault(2)), (0xFF_FFFF_FFF8, None)):
        piece = made.evidence(UD, page_fault(2), page_fault(2), address=address)
        assert explain([piece]).deliveries[0].observed == observed


def test_a_stack_that_is_not_canonical_may_raise_either_of_two():
    made = Machine(b"\x0f\x0b", rsp=(1 << 47) + 0x100)
    for event in (fault(Vector.SS, 1), fault(Vector.GP, 1)):
        found = explain([made.evidence(UD, event, event)])
        assert (found.deliveries[0].observed, found.deliveries[0].raised) == (None, event)
        assert found.causes == ("RSP is 0x800000000100, which is not a canonical address.",)
    assert explain([made.evidence(UD, NP, NP)]).causes == ()


def test_what_was_delivered_is_not_known():
    found = explain([machine().evidence(None, None, SHUTDOWN)])
    assert found == Explanation(None, (), SHUTDOWN, (), (), found.unproven)
    assert found.unproven.startswith("The event under delivery is not known")
    assert found.to_json()["origin"] is None


def test_an_event_that_was_discarded():
    found = explain([machine(UD=ABSENT).evidence(UD, NP, None)])
    assert (found.outcome, found.to_json()["ending"]) == ("discarded", "discarded")


def origin(event, reason=None, **fields):
    return Origin(event, 3, 0x33, 0x1234, 32, None, None, reason, "64-bit mode")._replace(**fields)


@pytest.mark.parametrize(
    ("found", "text", "detail"),
    [
        (origin(UD, "why"), "#UD at 0033:00001234, CPL 3, 64-bit mode", "why"),
        (origin(GP), "#GP(0x33) at 0033:00001234, CPL 3, 64-bit mode", "IDT entry 6, external"),
        (origin(fault(Vector.GP, 0)), "#GP(0x0) at 0033:00001234, CPL 3, 64-bit mode", None),
        (
            origin(DOUBLE_FAULT),
            "#DF at 0033:00001234, CPL 3, 64-bit mode",
            "the exceptions that led to it were not recorded",
        ),
        (origin(Event(0x20, EventType.INTR), bits=16), "interrupt 0x20 at 0033:1234, CPL 3, 64-bit mode", None),
        (
            origin(Event(8, EventType.SOFT), instruction="int 8"),
            "INT 0x08 at 0033:00001234, CPL 3, 64-bit mode: int 8",
            None,
        ),
    ],
)
def test_the_first_event_has_a_line_and_a_detail(found, text, detail):
    assert (str(found), found.detail) == (text, detail)


def test_a_task_gate_goes_no_further():
    assert (
        str(Delivery(UD, "a task switch follows", "12.5", None, None, None)) == "delivering #UD: a task switch follows"
    )


def test_a_repair_leads_to_a_handler_that_can_be_fetched():
    made = machine(UD=ABSENT)
    made.put(IDT + 16 * Vector.UD + 8, 0x100)  # the upper half of an address that is not mapped
    found = explain([made.evidence(UD, NP, NP)])
    assert found.causes == ("IDT entry 6 (#UD) is not present: its P bit is clear.",)
    assert found.repair == "with an interrupt gate in IDT entry 6"


def test_two_causes_are_named_where_it_takes_two_repairs():
    made = machine(UD=ABSENT)
    user = {
        "cpl": 3, "cs.selector": CODE_3 | 3, "cs.attributes": 0xAFB, "ss.selector": DATA_3 | 3, "ss.attributes": 0xCF3,
        "tr.selector": 0x28, "tr.base": TSS, "tr.limit": 0x67, "tr.attributes": 0x8B,
    }  # fmt: skip
    for name, value in user.items():
        set_field(made.save, name, value)
    found = explain([made.evidence(UD, NP, NP)])
    assert found.causes == (
        "IDT entry 6 (#UD) is not present: its P bit is clear.",
        "RSP0 in the TSS is zero: the delivery has no stack.",
    )
    assert found.repair == "with the P bit of the gate set, and with RSP0 pointing to mapped memory"
    attempt = made.attempt(UD)
    first, second = found.changes
    assert [attempt.changed(change).succeeds() for change in (first, second)] == [False, False]
    assert attempt.changed(first).changed(second).succeeds()


def test_one_exception_is_explained_by_itself():
    piece = machine().evidence(None, UD, UD)
    found = explain_exception(
        piece, name={CODE: "main+0x2"}.get, disassemble=lambda code, address, bits: code[:2].hex()
    )
    assert str(found).splitlines() == [
        "  #UD at 0008:0000000000006000 main+0x2, CPL 0, 64-bit mode: 0f0b",
        "     ud2 always raises #UD",
    ]
    at = machine().evidence(None, page_fault(2), page_fault(2), address=1 << 40)
    assert explain_exception(at).origin.reason == "write to 0x10000000000 (not mapped: PML4E is 0x0)"
    assert explain_exception(at._replace(event=None)).unproven == "The exception is not known."


def test_a_delivered_exception_is_explained_by_the_delivery_that_raised_it():
    piece = machine(UD=ABSENT).evidence(UD, NP, NP)
    found = explain_delivered(piece)
    assert found.causes == ("IDT entry 6 (#UD) is not present: its P bit is clear.",)
    assert (found.origin.event, found.outcome) == (UD, "#NP(0x33)")
    assert explain_delivered(piece._replace(event=GP)).origin.event == GP  # the model has another one
    assert explain_delivered(piece._replace(vectoring=None)).origin.event == NP


def test_one_exception_whose_memory_is_missing():
    piece = machine().evidence(None, UD, UD)._replace(memory=PartialMemory())
    found = explain_exception(piece)
    assert (found.origin, found.unproven) == (None, "The evidence does not include the memory at 0x1000.")


def test_one_story_has_the_error_codes_of_the_processor_alone():
    made = machine(UD=ABSENT, NP=ABSENT, DF=ABSENT)
    other = fault(Vector.NP, 0x66)
    chain = [made.evidence(UD, other, other), made.evidence(other, fault(Vector.NP, 0xB2), DOUBLE_FAULT)]
    told = [str(each) for each in explain(chain).deliveries]
    assert told[:2] == [
        "delivering #UD: IDT entry 6 is not present -> #NP(0x66)",
        "delivering #NP(0x66): IDT entry 11 is not present -> #NP(0xb2) -> #DF",
    ]


def test_without_any_code_segment_the_first_exception_is_the_cause():
    made = machine()
    for name, value in {"idtr.base": 0, "idtr.limit": 0x3FF, "gdtr.base": TSS, "cs.selector": 0}.items():
        set_field(made.save, name, value)
    made.put(0, *[0] * 64)
    found = explain([made.evidence(UD, fault(Vector.GP, 0x33), fault(Vector.GP, 0x33))])
    assert found.causes[0] == "#UD at 0x6000: ud2 always raises #UD."
    assert found.causes[1].startswith("no handler could be called, since no IDT is loaded for protected mode")
    assert (found.changes, found.repair, found.effect, found.unproven) == ((), None, None, None)


def test_without_a_proof_the_first_exception_leads(monkeypatch):
    monkeypatch.setattr("trapline.explain.explain.causes", lambda *state: ())
    assert explain([machine(UD=ABSENT).evidence(UD, NP, NP)]).unproven == (
        "#UD at 0x6000: ud2 always raises #UD. The first check that failed: IDT entry 6 is not present [APM vol. 2, "
        "8.2.12]. No single change was found with which the delivery succeeds."
    )


@pytest.mark.parametrize(
    ("cpl", "stack"), [(0, CODE + 0x800), (3, STACK)], ids=["the stack is in the page of the code", "a user's stack"]
)
def test_repairs_are_never_in_the_code_or_in_a_users_stack(cpl, stack):
    attempt = Machine(cpl=cpl, rsp=stack).attempt(fault(Vector.UD))
    found = [*repairs.stacks(attempt), *repairs.places(attempt)]
    assert found
    assert {CODE & -PAGE, stack & -PAGE}.isdisjoint(address & -PAGE for address in found)


def test_new_tables_are_where_nothing_is_first():
    machine = Machine()
    machine.put(GDT + 0xF00, 1)
    assert next(repairs.places(machine.attempt(fault(Vector.UD)))) == GDT + 0x700
