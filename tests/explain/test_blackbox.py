from types import SimpleNamespace

import pytest

from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType, encode
from trapline.arch.registers import Gprs
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.arch.vmcb import Vmcb
from trapline.explain import explain
from trapline.explain.blackbox import EXPLAINED, KEPT, BlackBox, chains
from trapline.explain.memory import MissingMemory
from trapline.hypervisor.exception import InterceptedException

GP, UD = (Event(vector, EventType.EXCEPTION, code) for vector, code in ((Vector.GP, 0x33), (Vector.UD, None)))


class Zeros:
    """Memory that counts how often it is read."""

    def __init__(self):
        self.reads = 0

    def read(self, gpa, size):
        self.reads += 1
        return bytes(size)


@pytest.fixture
def vcpu():
    """Return a guest of protected mode without an IDT."""
    vmcb = Vmcb()
    vmcb.save.cr0, vmcb.save.idtr.limit = 1, 7
    processor = SimpleNamespace(
        vmcb=vmcb,
        gprs=Gprs(),
        memory=Zeros(),
        capabilities=SimpleNamespace(physical_bits=40),
        cpuid=lambda function, subfunction: (0, 0, 0, 0),
    )
    return SimpleNamespace(number=0, processor=processor, policy=SimpleNamespace(mask=FORCEABLE))


SPOILT = InterceptedException(GP, UD, None)


def test_an_exception_of_the_guest_itself_leaves_nothing(vcpu):
    box = BlackBox()
    box(vcpu, InterceptedException(UD, None, None), UD, 5)
    assert not box.evidence
    assert vcpu.processor.memory.reads == 0


@pytest.mark.parametrize(("becomes", "other"), [(GP, DOUBLE_FAULT), (DOUBLE_FAULT, GP)])
def test_only_the_first_pieces_of_evidence_are_explained_at_once(vcpu, monkeypatch, becomes, other):
    explained = []
    whole = explain.explain
    monkeypatch.setattr(
        explain, "explain", lambda chain, **how: explained.append(chain[-1].becomes) or whole(chain, **how)
    )
    box = BlackBox()
    for _ in range(EXPLAINED + KEPT):
        box(vcpu, SPOILT, becomes, 5)
    assert explained == [becomes] * EXPLAINED
    assert len(box.evidence) == KEPT
    box(vcpu, SPOILT, other, 5)
    box(vcpu, SPOILT, SHUTDOWN, 5)
    assert explained[EXPLAINED:] == [other, SHUTDOWN]
    assert "IDT entry 6 is beyond IDTR.limit 0x7 [APM vol. 2, 8.9.2]" in box.explanation().unproven


def test_each_cpu_has_its_chains(vcpu):
    box, other = BlackBox(), SimpleNamespace(**{**vars(vcpu), "number": 1})
    box(vcpu, InterceptedException(GP, UD, None), GP, 1)
    box(other, SPOILT, SHUTDOWN, 2)
    box(vcpu, InterceptedException(GP, GP, None), DOUBLE_FAULT, 3)
    assert [[piece.sequence for piece in chain] for chain in chains(box.evidence)] == [[2], [1, 3]]
    assert '"vcpu":1' in box.evidence[1].to_json()
    assert "vcpu" not in box.evidence[0].to_json()


def test_the_last_exception_of_a_shutdown_leaves_evidence_once(vcpu):
    box = BlackBox()
    box(vcpu, SPOILT, SHUTDOWN, 5)
    box.shut_down(vcpu)
    assert len(box.evidence) == 1


def test_a_shutdown_without_an_intercepted_exception_leaves_evidence(vcpu):
    vcpu.processor.vmcb.control.exit_int_info = encode(UD)
    box = BlackBox()
    box.shut_down(vcpu)
    (piece,) = box.evidence
    assert (piece.event, piece.vectoring, piece.becomes) == (None, UD, SHUTDOWN)


def test_each_piece_of_evidence_is_a_line_for_the_sink(vcpu):
    lines = []
    box = BlackBox(lambda piece: lines.append(piece.to_json()))
    box(vcpu, SPOILT, SHUTDOWN, 5)
    assert len(lines) == 1
    assert '"becomes":"shutdown"' in lines[0]


def test_evidence_has_both_addresses_and_the_number_of_its_record(vcpu):
    first, second = Event(Vector.PF, EventType.EXCEPTION, 0), Event(Vector.PF, EventType.EXCEPTION, 2)
    vcpu.processor.vmcb.save.cr2 = 0x2000
    box = BlackBox()
    box(vcpu, InterceptedException(second, first, 0x2000, vectoring_address=0x1000), DOUBLE_FAULT, 41)
    (piece,) = box.evidence
    assert (piece.first_address, piece.address, piece.sequence) == (0x1000, 0x2000, 41)


def test_a_shutdown_while_a_page_fault_was_delivered_has_its_address(vcpu):
    vcpu.processor.vmcb.save.cr2 = 0x1000
    vcpu.processor.vmcb.control.exit_int_info = encode(Event(Vector.PF, EventType.EXCEPTION, 0))
    box = BlackBox()
    box.shut_down(vcpu)
    assert (box.evidence[0].first_address, box.evidence[0].address, box.evidence[0].sequence) == (0x1000, None, None)


def test_evidence_stays_as_it_was(vcpu):
    box = BlackBox()
    box(vcpu, SPOILT, SHUTDOWN, 5)
    reads = vcpu.processor.memory.reads
    (piece,) = box.evidence
    with pytest.raises(MissingMemory):
        piece.memory.u64(0x12345678)
    assert vcpu.processor.memory.reads == reads
