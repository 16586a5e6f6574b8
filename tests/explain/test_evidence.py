import io
import json

import pytest

from tests.explain.broken import LONG
from trapline.api import run
from trapline.arch.events import SHUTDOWN, Event, EventType
from trapline.arch.registers import Gprs
from trapline.arch.vectors import Vector
from trapline.arch.vmcb import SaveArea
from trapline.asm.disassembler import instruction
from trapline.errors import UsageError
from trapline.explain.attempt import Attempt
from trapline.explain.blackbox import chains
from trapline.explain.cpuid import CpuidAnswers
from trapline.explain.evidence import Evidence, from_stored
from trapline.explain.explain import explain
from trapline.explain.instruction import code_bytes, stack_top
from trapline.explain.memory import PartialMemory
from trapline.trace.stored import StoredEvidence, read_stored


def evidence(event=Vector.GP, vectoring=Vector.UD, becomes=SHUTDOWN, rip=0, qwords=None):
    save = SaveArea()
    save.rip, save.cs.selector, save.idtr.limit = rip, 8, 7
    gprs = Gprs()
    gprs.r15 = 1 << 63
    return Evidence(
        save,
        gprs,
        Event(event, EventType.EXCEPTION, 0x33),
        Event(vectoring, EventType.EXCEPTION),
        None,
        0x1000,
        becomes,
        40,
        PartialMemory(qwords or {0x1000: 5, 0x2000: None}),
        7,
        CpuidAnswers({(0x8000_0001, 0): (1, 2, 3, 4)}),
    )


def read(text):
    """Return the evidence in lines of JSON."""
    lines = read_stored(io.BytesIO(text.encode()))
    return [from_stored(line) for _, line in lines if isinstance(line, StoredEvidence)]


def test_evidence_comes_back_from_its_line():
    before = evidence()
    line = before.to_json()
    (after,) = read(line)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert after.to_json() == line
    assert bytes(after.save) == bytes(before.save)
    assert bytes(after.gprs) == bytes(before.gprs)
    assert after.memory.qwords == {0x1000: 5, 0x2000: None}
    assert after.cpuid.answers == {(0x8000_0001, 0): (1, 2, 3, 4)}
    assert (after.event, after.vectoring, after.becomes) == (before.event, before.vectoring, SHUTDOWN)
    assert (after.sequence, after.first_address, after.address) == (7, 0x1000, None)


DAMAGE = [
    ({"event": 3}, "$.event"),
    ({"event": {"vector": -1, "type": 3, "error_code": None}}, "$.event.vector"),
    ({"event": {"vector": 200, "type": 3, "error_code": None}}, "no exception has vector 200"),
    ({"event": {"vector": 6, "type": 8, "error_code": None}}, "$.event.type"),
    ({"event": {"vector": 6, "type": 3, "error_code": "5"}}, "$.event.error_code"),
    ({"event": {"vector": 6, "type": 3, "error_code": 1 << 32}}, "$.event.error_code"),
    ({"memory": {"x": "y"}}, "a number of 64 bits, as `0x1f`"),
    ({"memory": {"0x1004": "0x0"}}, "0x1004 is not the address of 8 bytes of memory"),
    ({"memory": {"0x10000000000000": "0x0"}}, "0x10000000000000 is not the address"),
    ({"memory": []}, "$.memory"),
    ({"memory": {hex(8 * number): None for number in range((1 << 14) + 1)}}, "$.memory"),
    ({"save": {"no.such": "0x1"}}, "there is no field 'no.such'"),
    ({"save": {"cs.selector": "0x10000"}}, "cs.selector has 16 bits"),
    ({"save": {"rip": "0x10000000000000000"}}, "$.save"),
    ({"gprs": {"rip": "0x1"}}, "there is no field 'rip'"),
    ({"becomes": "what"}, "$.becomes"),
    ({"physical_bits": 10**12}, "$.physical_bits"),
    ({"physical_bits": 40.5}, "$.physical_bits"),
    ({"seq": -1}, "$.seq"),
    ({"address": "-0x1"}, "$.address"),
]


@pytest.mark.parametrize(("change", "complaint"), DAMAGE, ids=[complaint for _, complaint in DAMAGE])
def test_damaged_evidence_is_told_in_a_line(change, complaint):
    with pytest.raises(UsageError) as caught:
        read(json.dumps(json.loads(evidence().to_json()) | change) + "\n")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_memory_does_not_tell_is_no_cause():
    unknown = evidence(qwords={0x3000: 1})
    unknown.save.idtr.limit = 0x3FF
    explanation = explain([unknown])
    assert explanation.causes == ()
    assert "does not include the memory" in explanation.unproven


def test_what_a_delivery_became_continues_its_chain():
    first = evidence(becomes=Event(Vector.DF, EventType.EXCEPTION, 0))
    second = evidence(vectoring=Vector.DF)
    assert chains([first, second, second]) == [[first, second], [second]]
    other = evidence(vectoring=Vector.GP)
    assert chains([first, other]) == [[first], [other]]


@pytest.mark.parametrize("name", ["rip", "rsp", "cr3", "rflags"])
def test_evidence_of_another_state_is_another_chain(name):
    first = evidence(becomes=Event(Vector.DF, EventType.EXCEPTION, 0))
    other = evidence(vectoring=Vector.DF)
    setattr(other.save, name, 5)
    assert chains([first, other]) == [[first], [other]]


@pytest.mark.parametrize("broken", LONG[:12], ids=lambda broken: broken.name)
def test_a_stored_run_tells_the_same_explanation(tmp_path, broken):
    image = tmp_path / "image"
    image.write_bytes(broken.image())
    path = tmp_path / "lines"
    result = run(image, exceptions="all", memory="16M", processor="unicorn", timeout=120, output=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    records = [fields for fields in lines if "type" not in fields]
    found = read(path.read_text())
    assert [record["seq"] for record in records] == list(range(result.recorded))
    assert explain(chains(found)[-1], disassemble=instruction) == result.explanation
    assert [records[piece.sequence]["vector"] for piece in found] == [piece.event.vector for piece in found]


def test_without_forced_exceptions_the_shutdown_is_explained(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(LONG[0].image())
    explanation = run(image, exceptions="none", memory="16M", processor="unicorn", timeout=120).explanation
    assert explanation.origin.detail == "the exceptions that led to it were not recorded"
    assert explanation.causes == ("no IDT is loaded: IDTR has base 0 and limit 0.",)


def test_the_origin_has_the_name_and_the_text_that_are_given(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(LONG[0].image())
    path = tmp_path / "lines"
    run(image, exceptions="all", memory="16M", processor="unicorn", timeout=120, output=path)
    chain = chains(read(path.read_text()))[-1]
    rip = chain[0].save.rip
    asked = []

    def disassemble(code, address, bits):
        asked.append((code[:2], address, bits))
        return "ud2"

    attempt = Attempt.of(chain[-1], chain[-1].vectoring)
    assert code_bytes(attempt).startswith(b"\x0f\x0b")
    assert len(stack_top(attempt)) == 16

    explanation = explain(chain, name=lambda address: "boot+0x1" if address == rip else None, disassemble=disassemble)
    assert str(explanation.origin) == f"#UD at 0008:{rip:016x} boot+0x1, CPL 0, 64-bit mode: ud2"
    assert asked == [(b"\x0f\x0b", rip, 64)]


def test_cpuid_is_asked_once_and_kept():
    asked = []

    def source(function, subfunction):
        asked.append((function, subfunction))
        return 1, 2, 4, 8

    answers = CpuidAnswers(source=source)
    assert [answers.has(7, register, register) for register in range(4)] == [True, True, True, True]
    answers.detach()
    assert (answers.has(7, 0, 1), answers.has(1, 0, 0)) == (False, None)
    assert asked == [(7, 0)]
