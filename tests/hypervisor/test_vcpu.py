import pytest

from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, DR6, EFER
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.errors import ProcessorLost
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.stop import StopReason
from trapline.machine.processor import Outcome
from trapline.machine.scripted import vmexit

UD_EXIT = vmexit(0x46)


def test_a_vcpu_starts_from_the_reset_state(play):
    played = play()
    save, gprs = played.processor.entries[1].vmcb.save, played.processor.entries[1].gprs
    assert (save.cs.selector, save.cs.base, save.rip) == (0xF000, 0xFFFF_0000, 0xFFF0)
    assert (save.efer, save.dr6, gprs.rdx) == (EFER.SVME, DR6.FIXED, played.processor.signature)


def test_a_guest_that_slept_goes_on_from_the_reset_state(play):
    played = play(UD_EXIT, Outcome.WOKEN, UD_EXIT, Outcome.RESET, mask=1 << Vector.UD)
    save = played.processor.entries[3].vmcb.save
    assert (save.cs.selector, save.rip) == (0xF000, 0xFFF0)
    assert played.processor.entries[3].vmcb.control.intercept_exceptions == 1 << Vector.UD
    assert played.stop.reason is StopReason.RESET


@pytest.mark.parametrize(("outcome", "reason"), [(Outcome.OFF, StopReason.OFF), (Outcome.DEADLINE, StopReason.TIMEOUT)])
def test_the_end_of_a_run_has_a_reason(play, outcome, reason):
    assert play(outcome).stop.reason is reason


def test_the_deadline_reaches_the_processor(build):
    vm = build(Outcome.DEADLINE)
    vm.run(1234.5)
    assert {entry.deadline for entry in vm.processor.entries} == {1234.5}


def test_a_lost_processor_is_an_error(build):
    vm = build(ProcessorLost("gone"))
    with pytest.raises(ProcessorLost, match="gone"):
        vm.run()


def test_what_vmrun_refuses_is_said_before_the_vmcb(play):
    def refused(processor):
        processor.vmcb.save.cr0 |= CR0.NW
        processor.vmcb.save.cr0 &= ~CR0.CD
        processor.vmcb.control.exit_code = ExitCode.INVALID

    lines = play(refused).stop.detail.splitlines()
    assert lines[0] == "the guest entered a state that VMRUN refuses: CR0.CD is clear and CR0.NW is set"
    assert lines[1].startswith("exit: INVALID")


@pytest.mark.parametrize("code", [0x4FF, ExitCode.HLT, ExitCode.NPF, ExitCode.INVALID])
def test_an_unlisted_exit_stops_with_the_vmcb_in_words(play, code):
    played = play(vmexit(code, info_1=0x77, vectoring=Event(0x20, EventType.INTR)), rip=0x1234)
    assert played.stop.reason is StopReason.FAILED
    lines = played.stop.detail.splitlines()[code == ExitCode.INVALID :]  # before it, why: the control area is zero
    assert lines[0].endswith(f"({int(code):#x})")
    assert lines[1] == "vectoring: interrupt 0x20"
    assert any("exit_info_1" in line and line.endswith("77") for line in lines)
    assert any(" rip " in line and line.endswith("1234") for line in lines)


@pytest.mark.parametrize(
    ("event", "again"),
    [
        (Event(0x20, EventType.INTR), True),
        (Event(2, EventType.NMI), True),
        (Event(Vector.PF, EventType.EXCEPTION, 2), True),
        (Event(0x80, EventType.SOFT), False),
    ],
)
def test_a_delivery_that_no_exception_interrupted_is_repeated(play, event, again):
    played = play(vmexit(ExitCode.CPUID, vectoring=event), interrupt_shadow=1)
    assert played.entry.event == (event if again else None)
    assert played.entry.vmcb.control.interrupt_shadow == 0


def test_what_was_delivered_is_not_repeated(play):
    event = Event(0x20, EventType.INTR)
    played = play(vmexit(ExitCode.CPUID, vectoring=event), vmexit(ExitCode.CPUID))
    assert [entry.event for entry in played.processor.entries[2:]] == [event, None]


def test_a_kick_that_nobody_needs_changes_nothing(play):
    played = play(UD_EXIT, Outcome.KICKED, mask=1 << Vector.UD)
    assert played.processor.entries[-2].event == played.entry.event == Event(Vector.UD, EventType.EXCEPTION)


def test_a_reset_ends_the_run(play):
    played = play(UD_EXIT, Outcome.RESET, mask=1 << Vector.UD)
    assert played.stop.reason is StopReason.RESET
    assert played.vm.vcpu.resets == 2


def test_a_guest_that_may_reboot_starts_again(play, watch):
    def leave_traces(processor):
        processor.vmcb.save.rip = 0x1234
        processor.vmcb.save.cr0 = 0x8000_0011
        processor.msrpm[:] = bytes(len(processor.msrpm))
        return Outcome.RESET

    played = play(UD_EXIT, leave_traces, UD_EXIT, mask=FORCEABLE, reboots=True)
    again = played.processor.entries[-2]
    assert (again.vmcb.save.rip, again.vmcb.save.cs.base) == (0xFFF0, 0xFFFF_0000)
    assert again.event is None
    assert again.vmcb.control.intercept_exceptions == FORCEABLE
    assert any(again.msrpm)
    assert played.entry.event == Event(Vector.UD, EventType.EXCEPTION)
    assert played.stop.reason is StopReason.OFF


def test_a_reset_forgets_what_was_pending(play):
    def write_hsave(processor):
        processor.gprs.rcx, processor.vmcb.save.rax, processor.gprs.rdx = 0xC001_0117, 0x1000, 0
        return vmexit(ExitCode.MSR, info_1=1)(processor)

    assert play(write_hsave).vm.vcpu.vm_hsave_pa == 0x1000
    played = play(write_hsave, Outcome.RESET, reboots=True)
    assert played.vm.vcpu.vm_hsave_pa == 0
    assert played.entry.event is None


def test_an_exception_that_an_observer_stopped_at_dies_with_a_reset(play, watch):
    played = play(
        UD_EXIT,
        Outcome.RESET,
        mask=FORCEABLE,
        reboots=True,
        observers=[watch(verdicts=[Verdict.STOP])],
    )
    assert played.vm.run().reason is StopReason.OFF
    assert played.entry.event is None
    assert played.vm.vcpu.undelivered is None


def test_without_a_recorder_nothing_is_told(build):
    vm = build(UD_EXIT, mask=FORCEABLE)
    assert vm.run().reason is StopReason.OFF
