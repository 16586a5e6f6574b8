import pytest

from trapline.arch.events import Event, EventType, encode
from trapline.arch.exits import ExitCode
from trapline.arch.vectors import Vector
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.machine.record import Record, RecordFlags
from trapline.machine.scripted import vmexit

UD, DF, PF = Vector.UD, Vector.DF, Vector.PF
F = RecordFlags


@pytest.fixture
def record(build):
    """Return a function that runs the steps and returns the records."""

    def record(*steps, **options):
        records = []
        recording = Recording(lambda data: records.append(Record.from_buffer_copy(data)))
        build(*steps, recorders=(recording,), **options).run()
        return records

    return record


def test_a_record_holds_what_was_known_at_the_exit(record):
    vectoring = Event(0x20, EventType.INTR)
    fields = {"rip": 1, "rsp": 2, "rflags": 3, "cr3": 4, "cr4": 5, "efer": 6, "dr6": 7, "cpl": 3, "cr2": 99}

    def step(processor):
        processor.tsc = 1000
        save = processor.vmcb.save
        save.cs.selector, save.cs.base, save.ss.selector = 8, 0x8000, 16
        vmexit(0x4E, info_1=2, info_2=0xCAFE, vectoring=vectoring)(processor)

    (found,) = record(step, mask=1 << PF, **fields)
    assert {name: getattr(found, name) for name in fields if name != "cr2"} == {
        name: value for name, value in fields.items() if name != "cr2"
    }
    assert (found.tsc, found.vector, found.cs, found.cs_base, found.ss) == (1000, PF, 8, 0x8000, 16)
    assert (found.error_code, found.address, found.cr0) == (2, 0xCAFE, 1)
    assert found.exit_int_info == encode(vectoring)
    assert found.event == encode(Event(PF, EventType.EXCEPTION, 2))
    assert found.flags == F.HAS_ERROR_CODE | F.HAS_ADDRESS | F.FORWARDED


def test_a_double_fault_has_two_records(record):
    step = vmexit(0x4E, vectoring=Event(PF, EventType.EXCEPTION, 0))
    first, second = record(step, mask=1 << PF | 1 << DF)
    assert (first.vector, first.flags) == (PF, F.HAS_ERROR_CODE | F.HAS_ADDRESS | F.COMBINED)
    assert (second.vector, second.flags) == (DF, F.HAS_ERROR_CODE | F.SYNTHESIZED | F.FORWARDED)


def test_a_shutdown_is_said(record):
    (found,) = record(vmexit(0x46, vectoring=Event(DF, EventType.EXCEPTION, 0)), mask=1 << UD)
    assert (found.flags, found.event) == (F.SHUTDOWN, 0)


def test_what_the_guest_does_not_get_is_said(record, watch):
    found = record(vmexit(0x46), mask=1 << UD, observers=[watch(verdicts=[Verdict.DISCARD])])
    assert [(one.flags, one.event) for one in found] == [(F.DISCARDED, 0)]


def test_what_an_observer_stops_at_is_recorded_when_it_is_delivered(build, watch):
    records = []
    recording = Recording(lambda data: records.append(Record.from_buffer_copy(data)))
    vm = build(vmexit(0x46), recorders=(recording,), mask=1 << UD, observers=[watch(verdicts=[Verdict.STOP])])
    assert vm.run().reason is StopReason.EXCEPTION
    assert records == []
    assert vm.run().reason is StopReason.OFF
    assert [(one.vector, one.flags) for one in records] == [(UD, F.FORWARDED)]


@pytest.mark.parametrize("forced", [False, True])
def test_vectors_that_nobody_forced_stay_out(record, forced):
    found = record(vmexit(ExitCode.VMMCALL), mask=forced << UD)  # the hypervisor raises #UD
    assert [one.vector for one in found] == [UD] * forced


def test_followers_get_the_number_of_the_record(build):
    seen = []
    numbers = iter((7, 8))
    recording = Recording(lambda data: next(numbers), (lambda vcpu, *told: seen.append(told),))
    step = vmexit(0x4E, info_1=2, info_2=0xCAFE, vectoring=Event(PF, EventType.EXCEPTION, 0))
    build(step, vmexit(ExitCode.VMMCALL), recorders=(recording,), mask=1 << PF | 1 << DF, cr2=0xBEEF).run()
    assert [(exit.event.vector, number) for exit, _, number in seen] == [(PF, 7), (DF, 8), (UD, None)]
    spoilt = seen[0][0]
    assert (spoilt.address, spoilt.vectoring_address) == (0xCAFE, 0xBEEF)


def test_only_a_page_fault_under_delivery_has_an_address(build):
    seen = []
    recording = Recording(lambda data: None, (lambda vcpu, exit, *rest: seen.append(exit),))
    steps = [vmexit(0x46), vmexit(0x4D, vectoring=Event(UD, EventType.EXCEPTION))]
    build(*steps, recorders=(recording,), mask=1 << UD | 1 << Vector.GP, cr2=0xBEEF).run()
    assert [exit.vectoring_address for exit in seen] == [None, None]
