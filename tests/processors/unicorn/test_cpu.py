import pytest

from trapline.arch.events import DOUBLE_FAULT, Event, EventType, decode
from trapline.arch.exits import ExitCode
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import Vector
from trapline.processors.unicorn.stops import EXIT, RESUME
from trapline.testing.conformance.modes import CODE, LONG, PROTECTED_32, REAL, UNMAPPED, gate, handler

DB_EXIT, DF_EXIT, GP_EXIT, NP_EXIT, PF_EXIT = (
    0x40 + vector for vector in (Vector.DB, Vector.DF, Vector.GP, Vector.NP, Vector.PF)
)
AFTER = CODE + 2


@pytest.fixture
def cpu(start):
    """Return a function that gives (guest, its CPU) of a mode, with some gates absent."""

    def cpu(*absent, mode=LONG, exceptions=0):
        guest = start("cpuid", mode=mode, exceptions=exceptions)
        for vector in absent:
            guest.memory.write(*gate(mode, vector, present=False))
        return guest, guest.processor.core.cpu

    return cpu


def test_an_intercepted_exception_exits_and_nothing_else_changes(cpu):
    guest, one = cpu(exceptions=1 << Vector.PF)
    before = bytes(guest.save)
    assert one.raise_exception(Vector.PF, 2, 0x1234_5000) is EXIT
    control = guest.control
    assert (control.exit_code, control.exit_info_1, control.exit_info_2) == (PF_EXIT, 2, 0x1234_5000)
    assert (control.exit_int_info, control.nrip) == (0, 0)
    assert bytes(guest.save) == before


def test_a_page_fault_of_the_guests_own_writes_cr2_and_starts_its_handler(cpu):
    guest, one = cpu()
    assert one.raise_exception(Vector.PF, 2, 0x1234_5000) is RESUME
    assert (guest.save.cr2, guest.save.rip) == (0x1234_5000, handler(Vector.PF))


def test_what_is_delivered_in_real_mode_has_no_error_code(cpu):
    guest, one = cpu(mode=REAL, exceptions=1 << Vector.GP)
    guest.save.idtr.limit = 4 * Vector.SS - 1
    assert one.deliver(Event(Vector.SS, EventType.EXCEPTION, 0), None) is EXIT
    assert guest.control.exit_code == GP_EXIT
    assert decode(guest.control.exit_int_info) == Event(Vector.SS, EventType.EXCEPTION)


@pytest.mark.parametrize("vector", [Vector.BP, Vector.OF])
def test_int3_and_into(cpu, vector):
    guest, one = cpu(mode=PROTECTED_32, exceptions=1 << vector)
    assert one.raise_software(vector, 2) is EXIT
    assert (guest.control.exit_code, guest.control.nrip, guest.save.rip) == (0x40 + vector, AFTER, CODE)
    guest.control.intercept_exceptions = 0
    assert one.raise_software(vector, 2) is RESUME
    assert (guest.save.rip, guest.u32(guest.save.rsp)) == (handler(vector), AFTER)


def test_what_follows_from_a_delivery_exits_with_the_event(cpu):
    guest, one = cpu(0x80, exceptions=1 << Vector.NP)
    assert one.deliver(Event(0x80, EventType.SOFT), AFTER) is EXIT
    assert (guest.control.exit_code, guest.control.exit_info_1) == (NP_EXIT, 0x80 * 8 + 2)
    assert decode(guest.control.exit_int_info) == Event(0x80, EventType.SOFT)
    assert guest.save.rip == CODE


def test_what_follows_is_delivered_where_nobody_intercepts(cpu):
    guest, one = cpu(0x80)
    assert one.deliver(Event(0x80, EventType.INTR), None) is RESUME
    assert guest.save.rip == handler(Vector.NP)


def test_two_contributory_exceptions_make_a_double_fault(cpu):
    guest, one = cpu(Vector.GP)
    assert one.raise_exception(Vector.GP, 0) is RESUME
    assert guest.save.rip == handler(Vector.DF)


def test_an_intercepted_double_fault_exits(cpu):
    guest, one = cpu(Vector.GP, exceptions=1 << Vector.DF)
    assert one.raise_exception(Vector.GP, 0) is EXIT
    assert (guest.control.exit_code, guest.control.exit_info_1) == (DF_EXIT, 0)


def test_a_failed_double_fault_is_a_shutdown(cpu):
    guest, one = cpu(Vector.GP, Vector.DF)
    assert one.raise_exception(Vector.GP, 0) is EXIT
    assert guest.control.exit_code == ExitCode.SHUTDOWN
    assert decode(guest.control.exit_int_info) == DOUBLE_FAULT


def test_a_page_fault_in_a_delivery_writes_cr2_before_it_combines(cpu):
    guest, one = cpu()
    guest.save.rsp = UNMAPPED + 0x1000
    assert one.raise_exception(Vector.PF, 0, 0x1234_5000) is EXIT
    assert guest.control.exit_code == ExitCode.SHUTDOWN
    assert UNMAPPED <= guest.save.cr2 < UNMAPPED + 0x1000


def test_an_event_ends_halt_and_shadow(cpu):
    guest, one = cpu()
    one.halted, guest.control.interrupt_shadow = True, 1
    assert one.deliver(Event(0x30, EventType.INTR), None) is RESUME
    assert (one.halted, guest.control.interrupt_shadow) == (False, 0)


def test_skip_ends_rf_and_the_shadow(cpu):
    guest, one = cpu()
    guest.save.rflags |= RFLAGS.RF
    guest.control.interrupt_shadow = 1
    assert one.skip(2) is RESUME
    assert (guest.save.rip, guest.save.rflags, guest.control.interrupt_shadow) == (AFTER, RFLAGS.ALWAYS_ONE, 0)


def test_a_skipped_instruction_traps_under_tf(cpu):
    guest, one = cpu(exceptions=1 << Vector.DB)
    guest.save.rflags |= RFLAGS.TF
    assert one.skip(2) is EXIT
    assert (guest.control.exit_code, guest.save.rip) == (DB_EXIT, AFTER)
    assert guest.save.dr6 == DR6.FIXED | DR6.BS
