import pytest

from trapline.arch.events import SHUTDOWN, Event, EventType
from trapline.arch.exits import EXCEPTION_EXITS
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import FORCEABLE, Vector, bits
from trapline.hypervisor.delivery import error_code
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.stop import StopReason
from trapline.machine.processor import Outcome
from trapline.machine.scripted import vmexit

DE, DB, BP, OF, UD = Vector.DE, Vector.DB, Vector.BP, Vector.OF, Vector.UD
DF, NP, GP, PF = Vector.DF, Vector.NP, Vector.GP, Vector.PF
CODES = {8: 0, 10: 0xBAD1, 11: 0xBAD1, 12: 0xBAD1, 13: 0xBAD1, 14: 0xBAD1, 17: 0xBAD1, 21: 0xBAD1}
"""What each vector pushes when EXITINFO1 is 0xBAD1, by hand from APM 8.2 and 15.12."""
FAULTS = (0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 21)


def fault(vector, code=None):
    return Event(vector, EventType.EXCEPTION, code)


def raised(vector, info_1=0, info_2=0, vectoring=None):
    return vmexit(EXCEPTION_EXITS.start + vector, info_1=info_1, info_2=info_2, vectoring=vectoring)


@pytest.mark.parametrize("vector", list(bits(FORCEABLE)))
def test_an_exception_goes_back_as_it_was(play, vector):
    played = play(raised(vector, 0xBAD1, 0xCAFE), mask=1 << vector, rip=0x7C00, rsp=0x7000, cr2=0x55)
    entry = played.entry
    assert entry.event == fault(vector, CODES.get(vector))
    assert entry.vmcb.save.cr2 == (0xCAFE if vector == PF else 0x55)
    assert (entry.vmcb.save.rip, entry.vmcb.save.rsp) == (0x7C00, 0x7000)
    assert played.stop.reason is StopReason.OFF


def test_an_error_code_has_32_bits():
    assert error_code(PF, 0xFFFF_FFFF_8000_0005) == 0x8000_0005


@pytest.mark.parametrize("vector", [DF, GP])
def test_real_mode_pushes_no_error_code(play, vector):
    assert play(raised(vector, 0x1234), mask=1 << vector, cr0=0x10).entry.event == fault(vector)


def test_an_entry_after_the_delivery_injects_nothing(play):
    played = play(raised(UD), Outcome.KICKED, vmexit(0x7F), mask=1 << UD)
    kicked, later = played.processor.entries[-2:]
    assert kicked.event == later.event == fault(UD)  # a kick is no exit: the event is still to come
    assert played.processor.vmcb.control.event_inj == 0


@pytest.mark.parametrize(
    ("vectoring", "vector", "result"),
    [
        (fault(DB), GP, fault(GP, 2)),
        (fault(UD), PF, fault(PF, 2)),
        (fault(GP, 1), UD, fault(UD)),
        (fault(GP, 1), GP, fault(DF, 0)),
        (fault(DE), NP, fault(DF, 0)),
        (fault(DE), PF, fault(PF, 2)),
        (fault(PF, 1), UD, fault(UD)),
        (fault(PF, 1), NP, fault(DF, 0)),
        (fault(PF, 1), PF, fault(DF, 0)),
        (fault(DF, 0), UD, SHUTDOWN),
        (fault(DF, 0), GP, SHUTDOWN),
        (fault(DF, 0), PF, SHUTDOWN),
        (Event(0x20, EventType.INTR), GP, fault(GP, 2)),
        (Event(GP, EventType.INTR), GP, fault(GP, 2)),
        (Event(2, EventType.NMI), PF, fault(PF, 2)),
        (Event(0x80, EventType.SOFT), NP, fault(NP, 2)),
        (Event(DF, EventType.SOFT), GP, fault(GP, 2)),
    ],
)
def test_what_was_being_delivered_combines(play, vectoring, vector, result):
    played = play(raised(vector, 2, 0xCAFE, vectoring), mask=FORCEABLE & ~(1 << DF))
    assert [injected for _, injected in played.deliveries] == [result]
    assert played.deliveries[0][0].vectoring == vectoring
    if result is SHUTDOWN:
        assert played.stop.reason is StopReason.SHUTDOWN
        assert played.processor.vmcb.control.event_inj == 0
    else:
        assert played.entry.event == result
    assert played.processor.vmcb.save.cr2 == (0xCAFE if vector == PF else 0)


def test_three_levels_end_in_a_shutdown(play):
    steps = (raised(GP, 0x10), raised(NP, 0x20, 0, fault(GP, 0x10)), raised(UD, 0, 0, fault(DF, 0)))
    played = play(*steps, mask=FORCEABLE)
    assert [entry.event for entry in played.processor.entries[2:]] == [fault(GP, 0x10), fault(DF, 0)]
    assert played.stop.reason is StopReason.SHUTDOWN


def test_a_double_fault_that_is_forced_is_shown_before_it_is_delivered(play, watch):
    observer = watch()
    played = play(raised(PF, 0, 0xCAFE, fault(PF, 0)), mask=1 << PF | 1 << DF, observers=[observer])
    first, second = observer.seen
    assert (first.event, first.synthesized) == (fault(PF, 0), False)
    assert (second.event, second.vectoring, second.synthesized) == (fault(DF, 0), None, True)
    assert played.entry.event == fault(DF, 0)
    assert played.entry.vmcb.save.cr2 == 0xCAFE


def test_a_double_fault_that_is_not_forced_is_not_shown(play, watch):
    observer = watch()
    play(raised(PF, 0, 0xCAFE, fault(PF, 0)), mask=1 << PF, observers=[observer])
    assert len(observer.seen) == 1


def test_a_double_fault_of_the_hardware_is_shown_once(play, watch):
    observer = watch()
    played = play(raised(DF, 0xBAD1), mask=1 << DF, observers=[observer])
    assert [exit.synthesized for exit in observer.seen] == [False]
    assert played.entry.event == fault(DF, 0)


def test_a_discarded_double_fault_is_gone_with_both_its_causes(play, watch):
    observer = watch(1 << DF, [Verdict.DISCARD])
    played = play(raised(GP, 1, 0, fault(GP, 1)), mask=1 << GP | 1 << DF, observers=[observer])
    assert played.entry.event is None


@pytest.mark.parametrize("vector", [BP, OF])
def test_a_trap_keeps_its_instruction_and_the_address_behind_it(play, vector):
    played = play(raised(vector), mask=1 << vector, rip=0x100, nrip=0x101)
    assert (played.entry.vmcb.save.rip, played.entry.vmcb.control.nrip) == (0x100, 0x101)
    assert played.entry.event == fault(vector)


@pytest.mark.parametrize("sets", [True, False])
@pytest.mark.parametrize("vector", list(bits(FORCEABLE)))
def test_rf_is_set_for_faults_where_the_processor_leaves_it_to_us(play, vector, sets):
    played = play(raised(vector), mask=1 << vector, rflags=2, capabilities={"forwards_set_rf": sets})
    assert bool(played.entry.vmcb.save.rflags & RFLAGS.RF) == (sets and vector in FAULTS)


def test_rf_stays_away_from_interrupts(play):
    played = play(vmexit(0x72, vectoring=Event(0x0E, EventType.INTR)), rflags=2)
    assert played.entry.event == Event(0x0E, EventType.INTR)
    assert not played.entry.vmcb.save.rflags & RFLAGS.RF


def test_an_exception_ends_the_interrupt_shadow(play):
    assert play(raised(UD), mask=1 << UD, interrupt_shadow=1).entry.vmcb.control.interrupt_shadow == 0


def test_dr6_and_dr7_of_a_debug_exception_stay(play):
    save = play(raised(DB), mask=1 << DB, dr6=0xFFFF_4FF0, dr7=0x401).entry.vmcb.save
    assert (save.dr6, save.dr7) == (0xFFFF_4FF0, 0x401)


def test_what_nobody_delivers_leaves_cr2_alone(play, watch):
    played = play(raised(PF, 0, 0xCAFE), mask=1 << PF, cr2=0x55, observers=[watch(verdicts=[Verdict.DISCARD])])
    assert played.entry.vmcb.save.cr2 == 0x55


@pytest.mark.parametrize(
    ("vectoring", "again"),
    [
        (Event(0x20, EventType.INTR), True),
        (Event(2, EventType.NMI), True),
        (fault(GP, 0x10), True),
        (fault(DB), True),
        (Event(0x80, EventType.SOFT), False),  # RIP is still on the instruction, which executes again
        (fault(BP), False),
        (fault(OF), False),
    ],
)
def test_a_discarded_exception_leaves_what_was_being_delivered_owed(play, watch, vectoring, again):
    observer = watch(verdicts=[Verdict.DISCARD])
    played = play(raised(PF, 0, 0xCAFE, vectoring), mask=1 << PF, observers=[observer])
    assert played.entry.event == (vectoring if again else None)


@pytest.mark.parametrize("before", [0, RFLAGS.RF])
def test_a_fault_that_is_not_delivered_leaves_rf_as_it_was(play, before):
    first, second = raised(UD), raised(GP, 0x2A, vectoring=fault(UD))
    played = play(first, second, mask=1 << UD | 1 << GP | 1 << DF, rflags=2 | before)
    assert [bool(exit.event) for exit, _ in played.deliveries] == [True, True]
    assert played.entry.vmcb.save.rflags & RFLAGS.RF == RFLAGS.RF  # the #GP is a fault too
    third = raised(GP, 0x2A, vectoring=fault(GP, 0x2A))
    played = play(raised(GP, 0x2A), third, mask=1 << GP | 1 << DF, rflags=2 | before)
    assert played.entry.event.vector == DF
    assert played.entry.vmcb.save.rflags & RFLAGS.RF == before
