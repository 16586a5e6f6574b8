"""HLT and MWAIT where TCG raises their #DB past its intercept."""

import pytest

from trapline.arch.exits import ExitCode, exception_exit, is_intercepted
from trapline.arch.registers import DR6, RFLAGS
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.machine.scripted import ScriptedMemory
from trapline.processors.qemu.facts import MANUAL
from trapline.processors.qemu.quirks_tcg import TcgQuirks

RIP = 0x200
ALL_BUT_DB = FORCEABLE & ~(1 << Vector.DB)
HLT, MWAIT, INTR, NMI = ExitCode.HLT, ExitCode.MWAIT, ExitCode.INTR, ExitCode.NMI
LENGTHS = {HLT: 1, MWAIT: 3}


class Cpu:
    """Plays the monitor and the TCG below the quirks."""

    def __init__(self, shared, *, mask=FORCEABLE, hlt_asks=False, own=()):
        self.tcg = TcgQuirks(shared, ScriptedMemory(0x1000), MANUAL._replace(hlt_asks=hlt_asks))
        self.control, self.save = shared.vmcb.control, shared.vmcb.save
        self.control.intercept_exceptions = mask
        self.control.intercept_misc1 = sum(1 << code % 32 for code in own if code < ExitCode.VMRUN)
        self.tcg.note_intercepts()
        self.tcg.write_intercepts(stopping=False, watching=False)
        self.save.rip, self.save.rflags = RIP, RFLAGS.ALWAYS_ONE | RFLAGS.IF

    @property
    def intercepted(self):
        return {code for code in (HLT, MWAIT, INTR) if is_intercepted(self.control, code)}

    def leave(self, code, *, executed=0):
        """Leave with an exit, `executed` bytes further."""
        self.save.rip += executed
        self.control.exit_code, self.control.exit_info_1 = code, 0x55
        return self.tcg.after_exit()


@pytest.fixture
def cpu(shared):
    return lambda **options: Cpu(shared, **options)


@pytest.fixture(params=LENGTHS, ids=["HLT", "MWAIT"])
def waiting(request, cpu):
    """Return a function that lets a CPU wait in HLT or MWAIT, with and without TF."""

    def waiting(trap):
        one = cpu()
        one.save.rflags |= trap
        assert not one.leave(request.param)
        assert one.save.rip == RIP
        assert not one.save.rflags & RFLAGS.TF
        assert one.intercepted == {INTR}
        one.length = LENGTHS[request.param]
        return one

    return waiting


@pytest.mark.parametrize(
    ("options", "intercepted"),
    [
        ({}, {HLT, MWAIT}),
        ({"mask": 1 << Vector.DB}, {HLT, MWAIT}),
        ({"mask": ALL_BUT_DB}, set()),
        ({"hlt_asks": True}, set()),
    ],
)
def test_they_are_intercepted_where_their_db_is_wanted_and_would_be_missed(cpu, options, intercepted):
    assert cpu(**options).intercepted == intercepted


@pytest.mark.parametrize("event", [INTR, NMI])
def test_an_event_ends_the_wait_with_the_db(waiting, event):
    cpu = waiting(RFLAGS.TF)
    assert cpu.leave(event, executed=cpu.length)
    assert (cpu.control.exit_code, cpu.control.exit_info_1) == (exception_exit(Vector.DB), 0)
    assert cpu.save.rip == RIP + cpu.length
    assert cpu.save.dr6 & DR6.BS
    assert cpu.save.rflags & RFLAGS.TF
    assert cpu.intercepted == {HLT, MWAIT}


def test_without_tf_the_guest_goes_on_to_take_the_interrupt(waiting):
    cpu = waiting(0)
    assert not cpu.leave(INTR, executed=cpu.length)
    assert cpu.save.rip == RIP + cpu.length
    assert not cpu.save.dr6 & DR6.BS
    assert not cpu.save.rflags & RFLAGS.TF
    assert cpu.intercepted == {HLT, MWAIT}


def test_without_tf_the_guest_goes_on_to_take_its_nmi(waiting):
    cpu = waiting(0)
    assert not cpu.leave(NMI, executed=cpu.length)
    assert not is_intercepted(cpu.control, NMI)
    assert cpu.intercepted == {HLT, MWAIT}


@pytest.mark.parametrize("trap", [0, RFLAGS.TF])
def test_an_interrupt_before_the_instruction_is_taken_before_it(waiting, trap):
    cpu = waiting(trap)
    assert not cpu.leave(INTR)
    assert cpu.save.rip == RIP
    assert cpu.save.rflags & RFLAGS.TF == trap
    assert cpu.intercepted == {HLT, MWAIT}


@pytest.mark.parametrize("trap", [0, RFLAGS.TF])
def test_a_kicked_guest_waits_again_when_it_goes_on(waiting, trap):
    cpu = waiting(trap)
    cpu.tcg.nmis.foreign = True
    assert cpu.leave(NMI, executed=cpu.length)
    assert cpu.control.exit_code == NMI
    assert (cpu.save.rip, cpu.control.interrupt_shadow) == (RIP, 1)
    assert cpu.save.rflags & RFLAGS.TF == trap
    assert cpu.intercepted == {HLT, MWAIT}


def test_a_shutdown_meanwhile_is_one(waiting):
    cpu = waiting(RFLAGS.TF)
    assert cpu.leave(ExitCode.SHUTDOWN)
    assert cpu.control.exit_code == ExitCode.SHUTDOWN
    assert cpu.save.rflags & RFLAGS.TF


def test_a_forced_exit_ends_the_wait_too(waiting):
    cpu = waiting(RFLAGS.TF)
    cpu.tcg.drop_exit()
    assert cpu.save.rflags & RFLAGS.TF
    assert cpu.intercepted == {HLT, MWAIT}


def test_after_a_reset_nothing_is_put_back(waiting):
    cpu = waiting(RFLAGS.TF)
    cpu.tcg.reset()
    assert cpu.leave(ExitCode.SHUTDOWN)
    assert not cpu.save.rflags & RFLAGS.TF


def test_an_intercept_of_the_hypervisor_stays_its_own(cpu):
    one = cpu(own=(HLT, INTR))
    assert one.leave(HLT)
    assert one.control.exit_code == HLT
    assert one.leave(INTR)
    assert one.intercepted == {HLT, MWAIT, INTR}
