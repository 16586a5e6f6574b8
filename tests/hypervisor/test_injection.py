import pytest

from trapline.arch.descriptors import Attribute
from trapline.arch.events import DOUBLE_FAULT, SHUTDOWN, Event, EventType, combine
from trapline.arch.exits import EXCEPTION_EXITS
from trapline.arch.registers import CR0, CR4, EFER
from trapline.arch.vectors import FORCEABLE, VECTORS, WITH_ERROR_CODE, Vector, bits
from trapline.errors import UsageError
from trapline.hypervisor.exception import Verdict, injection
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.machine.record import Record, RecordFlags
from trapline.machine.scripted import vmexit

BP, BR, DF, GP, NP, OF, PF, UD = (
    Vector.BP, Vector.BR, Vector.DF, Vector.GP, Vector.NP, Vector.OF, Vector.PF, Vector.UD,
)  # fmt: skip
LONG = {"cr0": CR0.PE | CR0.PG, "cr4": CR4.PAE, "efer": EFER.LME | EFER.LMA | EFER.SVME}


def event(vector, code=None):
    return Event(vector, EventType.EXCEPTION, code)


def with_shadow_stacks(step):
    """Return a step on a CPU that can raise #CP."""

    def perform(processor):
        processor.answers[7, 0] = (0, 0, 1 << 7, 0)
        return step(processor)

    return perform


@pytest.mark.parametrize("instead", list(bits(FORCEABLE)))
def test_any_exception_takes_the_place_of_any_other(play, watch, instead):
    code = 0x18 if WITH_ERROR_CODE >> instead & 1 and instead != DF else None
    address = 0xCAFE if instead == PF else None
    for vector in bits(FORCEABLE):
        observer = watch(1 << vector, [injection(instead, code, address)])
        played = play(
            with_shadow_stacks(vmexit(EXCEPTION_EXITS.start + vector, info_1=1, info_2=0xBAD)),
            mask=FORCEABLE,
            observers=[observer],
            rip=0x7C00,
            nrip=0x7C01,
            cr2=0x55,
        )
        expected = 0 if instead == DF else code
        assert played.entry.event == event(instead, expected)
        assert played.entry.vmcb.save.cr2 == (address or 0x55)
        assert played.entry.vmcb.save.rip == 0x7C00
        own = vector == instead
        if instead in (BP, OF):
            assert played.entry.vmcb.control.nrip == (0x7C01 if own else 0x7C00)


@pytest.mark.parametrize("instead", [UD, GP, PF, DF])
@pytest.mark.parametrize(
    "vectoring", [event(UD), event(GP, 0), event(PF, 0), event(DF, 0), Event(0x20, EventType.INTR)]
)
def test_it_combines_with_what_was_being_delivered(play, watch, instead, vectoring):
    raised = vmexit(EXCEPTION_EXITS.start + NP, info_1=1, vectoring=vectoring)
    played = play(raised, mask=FORCEABLE & ~(1 << DF), observers=[watch(1 << NP, [injection(instead)])])
    result = combine(vectoring, injection(instead).event)
    assert [injected for _, injected in played.deliveries] == [result]
    if result is SHUTDOWN:
        assert played.stop.reason is StopReason.SHUTDOWN
    else:
        assert played.entry.event == result


def test_the_double_fault_that_comes_of_it_is_shown(play, watch):
    observer = watch(1 << NP | 1 << DF, [injection(GP, 8), Verdict.DISCARD])
    played = play(vmexit(0x4B, vectoring=event(GP, 0)), mask=FORCEABLE, observers=[observer])
    assert [exit.event for exit in observer.seen] == [event(NP, 0), DOUBLE_FAULT]
    assert played.entry.event is None


def test_the_record_says_what_was_injected_instead(build, watch):
    records = []
    recording = Recording(lambda data: records.append(Record.from_buffer_copy(data)))
    build(vmexit(0x46), mask=1 << UD, observers=[watch(verdicts=[injection(GP, 8)])], recorders=(recording,)).run()
    ((found),) = records
    assert (found.vector, found.flags) == (UD, RecordFlags.REPLACED)
    assert (found.event & 0xFF, found.event >> 32) == (GP, 8)


def test_a_stopped_guest_gets_what_was_decided(play, watch):
    played = play(vmexit(0x46), mask=1 << UD, observers=[watch(verdicts=[Verdict.STOP])])
    played.vm.decide(injection(PF, 2, 0x1000))
    assert played.vm.run().reason is StopReason.OFF
    assert played.entry.event == event(PF, 2)
    assert played.entry.vmcb.save.cr2 == 0x1000


def test_a_stopped_guest_goes_on_where_it_is_put(play, watch):
    played = play(vmexit(0x46), mask=1 << UD, observers=[watch(verdicts=[Verdict.STOP])], rip=0x1000)
    played.processor.vmcb.save.rip = 0x1002
    played.vm.decide(Verdict.DISCARD)
    assert played.vm.run().reason is StopReason.OFF
    assert (played.entry.event, played.entry.vmcb.save.rip) == (None, 0x1002)
    assert [injected for _, injected in played.deliveries] == [None]


def test_only_a_guest_that_stopped_at_an_exception_awaits_a_decision(play):
    with pytest.raises(UsageError, match="not stopped at an exception"):
        play(mask=1 << UD).vm.decide(Verdict.DISCARD)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(((row.vector,), row.refused) for row in VECTORS if row.refused),
        ((32,), "32 exception vectors"),
        ((-1,), "32 exception vectors"),
        ((UD, 0), "#UD cannot be injected with an error code"),
        ((DF, 1), "#DF cannot be injected with the error code 0x1"),
        ((GP, -1), "#GP cannot be injected with the error code"),
        ((GP, 1 << 32), "#GP cannot be injected with the error code"),
        ((GP, 0, 0x1000), "only #PF has one"),
        ((PF, 0, 1 << 64), "64 bits"),
    ],
)
def test_what_no_cpu_delivers_is_refused(arguments, words):
    with pytest.raises(UsageError) as error:
        injection(*arguments)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("instead", "attributes", "words"),
    [
        (BR, Attribute.L, "in the guest's mode"),
        (OF, Attribute.L, "in the guest's mode"),
        (Vector.CP, 0, "shadow stacks"),
    ],
)
def test_what_the_guest_cannot_have_is_the_observers_failure(build, watch, instead, attributes, words):
    def long_mode(processor):
        processor.vmcb.save.cs.attributes = attributes
        return vmexit(0x46)(processor)

    vm = build(long_mode, mask=1 << UD, observers=[watch(verdicts=[injection(instead)])], **LONG)
    assert vm.run().reason is StopReason.OFF
    ((_, error),) = vm.observers.failures
    assert words in str(error)
    assert vm.processor.entries[-1].event == event(UD)  # forwarded, as it was
