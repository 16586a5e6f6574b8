import pytest

from trapline.arch import msr
from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import CR0, CR4, DR6, EFER, RFLAGS
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.stop import StopReason
from trapline.machine.scripted import vmexit

UD = Event(Vector.UD, EventType.EXCEPTION)
GP = Event(Vector.GP, EventType.EXCEPTION, 0)
DB = Event(Vector.DB, EventType.EXCEPTION)
READ, WRITE = vmexit(ExitCode.MSR), vmexit(ExitCode.MSR, info_1=1)
SVM_INSTRUCTIONS = ("VMRUN", "VMMCALL", "VMLOAD", "VMSAVE", "STGI", "CLGI", "SKINIT", "INVLPGA")
HIGH = 0xAAAA_AAAA_0000_0000
"""What the upper halves of the registers hold when an instruction reads the lower ones."""

ZEN = {
    (0x8000_0001, 0): (0, 0, 1 << 17, 1 << 11 | 1 << 20 | 1 << 25 | 1 << 29),
    (0x8000_0008, 0): (0, 1 << 20, 0, 0),
    (0x8000_0021, 0): (1 << 8, 0, 0, 0),
}
"""CPUID of a CPU with SCE, NXE, FFXSR, LME, TCE and AIBRSE, and without LMSLE."""


@pytest.fixture
def access(play):
    """Return a function that lets the guest read or write an MSR at RIP 0x100, two bytes long."""

    def access(step, number, value=0, answers=ZEN, **options):
        fields = {
            "rip": 0x100,
            "nrip": 0x102,
            "rflags": RFLAGS.ALWAYS_ONE | RFLAGS.RF,
            "rcx": HIGH | number,
            "rax": HIGH | value & 0xFFFF_FFFF,
            "rdx": HIGH | value >> 32,
        }

        def answered(processor):
            processor.answers = answers
            return step(processor)

        return play(answered, **{**fields, **options})

    return access


def refused(played):
    return played.entry.event == GP and played.entry.vmcb.save.rip == 0x100


def skipped(played):
    save = played.entry.vmcb.save
    return played.entry.event is None and save.rip == 0x102 and not save.rflags & RFLAGS.RF


@pytest.mark.parametrize("name", SVM_INSTRUCTIONS)
def test_svm_instructions_are_undefined(play, name):
    played = play(vmexit(ExitCode[name]), rip=0x100, nrip=0x103, interrupt_shadow=1)
    assert played.entry.event == UD
    assert played.entry.vmcb.save.rip == 0x100
    assert played.entry.vmcb.save.rflags & RFLAGS.RF
    assert played.entry.vmcb.control.interrupt_shadow == 0


@pytest.mark.parametrize(("mask", "seen"), [(0, 0), (1 << Vector.UD, 1)])
def test_the_ud_of_an_svm_instruction_is_shown_when_forced(play, watch, mask, seen):
    observer = watch()
    played = play(vmexit(ExitCode.VMRUN), mask=mask, observers=[observer])
    assert [exit.synthesized for exit in observer.seen] == [True] * seen
    assert played.entry.event == UD


@pytest.mark.parametrize(("mask", "seen"), [(0, 0), (1 << Vector.DB, 1)])
def test_int1_is_a_trap_that_is_shown_when_forced(play, watch, mask, seen):
    observer = watch()
    played = play(vmexit(ExitCode.ICEBP), mask=mask, observers=[observer], rip=0x100, nrip=0x101)
    assert [(exit.event, exit.synthesized) for exit in observer.seen] == [(DB, False)] * seen
    assert played.entry.event == DB
    assert played.entry.vmcb.save.rip == 0x101
    assert not played.entry.vmcb.save.rflags & RFLAGS.RF


@pytest.mark.parametrize(
    ("mask", "intercepted"), [(0, False), (0xFFFF_FFFF & ~(1 << Vector.DB), False), (1 << Vector.DB, True)]
)
def test_int1_is_intercepted_where_debug_exceptions_are_forced(play, mask, intercepted):
    played = play(vmexit(ExitCode.SHUTDOWN), mask=mask & FORCEABLE)
    assert is_intercepted(played.entry.vmcb.control, ExitCode.ICEBP) is intercepted


def test_a_shutdown_of_the_hardware_stops(play):
    assert play(vmexit(ExitCode.SHUTDOWN)).stop.reason is StopReason.SHUTDOWN


def test_an_exception_that_nobody_forced_is_unexpected(play):
    stop = play(vmexit(0x46), mask=1 << Vector.PF).stop
    assert stop.reason is StopReason.FAILED
    assert stop.detail.startswith("exit: exception #UD (0x46)")


@pytest.mark.parametrize(
    ("leaf", "subleaf", "answer", "cr4", "expected"),
    [
        (0, 0, (0x10, 1, 2, 3), 0, (0x10, 1, 2, 3)),
        (0x8000_0001, 0, (1, 2, 0xFFFF_FFFF, 4), 0, (1, 2, 0xFFFF_FFFB, 4)),
        (0x8000_000A, 0, (1, 64, 0, 0xFF), 0, (0, 0, 0, 0)),
        (1, 0, (1, 2, 1 << 27 | 1, 4), 0, (1, 2, 1, 4)),
        (1, 0, (1, 2, 1, 4), CR4.OSXSAVE, (1, 2, 1 << 27 | 1, 4)),
        (7, 0, (1, 2, 1 << 4 | 1, 4), 0, (1, 2, 1, 4)),
        (7, 0, (1, 2, 1, 4), CR4.PKE, (1, 2, 1 << 4 | 1, 4)),
        (7, 1, (1, 2, 1 << 4, 4), 0, (1, 2, 1 << 4, 4)),
    ],
)
def test_cpuid_answers_as_the_cpu_but_without_svm(play, leaf, subleaf, answer, cr4, expected):
    def step(processor):
        processor.answers[leaf, subleaf] = answer
        return vmexit(ExitCode.CPUID)(processor)

    played = play(step, rax=HIGH | leaf, rcx=HIGH | subleaf, rbx=HIGH, rdx=HIGH, cr4=cr4, rip=5, nrip=7)
    gprs, save = played.entry.gprs, played.entry.vmcb.save
    assert (save.rax, gprs.rbx, gprs.rcx, gprs.rdx) == expected
    assert (save.rip, played.entry.event) == (7, None)


def test_an_instruction_that_we_executed_ends_the_shadow_and_rf(access):
    played = access(READ, msr.VM_CR, interrupt_shadow=1)
    assert skipped(played)
    assert played.entry.vmcb.control.interrupt_shadow == 0


@pytest.mark.parametrize("mask", [0, 1 << Vector.DB])
def test_a_single_step_over_it_is_owed_its_db(access, watch, mask):
    observer = watch()
    played = access(
        READ, msr.VM_CR, mask=mask, observers=[observer], rflags=RFLAGS.TF | RFLAGS.RF, dr6=DR6.FIXED | DR6.B1
    )
    save = played.entry.vmcb.save
    assert played.entry.event == DB
    assert save.rip == 0x102
    assert save.dr6 == DR6.FIXED | DR6.B1 | DR6.BS
    assert save.rflags == RFLAGS.TF
    assert [exit.event for exit in observer.seen] == [DB] * bool(mask)


def test_an_observer_may_stop_at_that_db(access, watch):
    played = access(
        READ,
        msr.VM_CR,
        mask=1 << Vector.DB,
        rflags=RFLAGS.TF,
        observers=[watch(verdicts=[Verdict.STOP])],
    )
    assert played.stop.reason is StopReason.EXCEPTION


def test_efer_shows_no_svme(access):
    played = access(READ, msr.EFER, efer=EFER.SVME | EFER.LME | EFER.LMA | EFER.NXE)
    assert skipped(played)
    assert (played.entry.vmcb.save.rax, played.entry.gprs.rdx) == (0xD00, 0)


@pytest.mark.parametrize(
    ("old", "new", "kept", "paging"),
    [
        (0, EFER.SCE | EFER.NXE, EFER.SCE | EFER.NXE, CR0.PG),
        (EFER.SCE | EFER.NXE, EFER.NXE, EFER.NXE, CR0.PG),
        (0, EFER.LME, EFER.LME, 0),
        (EFER.LME, 0, 0, 0),
        (0, EFER.FFXSR | EFER.TCE | EFER.AIBRSE, EFER.FFXSR | EFER.TCE | EFER.AIBRSE, 0),
        (EFER.LME | EFER.LMA, EFER.LME | EFER.SCE, EFER.LME | EFER.LMA | EFER.SCE, CR0.PG),
        (0, EFER.LMA | EFER.SCE, EFER.SCE, 0),
        (EFER.LME | EFER.LMA, EFER.LME | EFER.LMA | EFER.NXE, EFER.LME | EFER.LMA | EFER.NXE, CR0.PG),
    ],
)
def test_efer_is_written_but_for_svme_and_lma(access, old, new, kept, paging):
    played = access(WRITE, msr.EFER, new, efer=old | EFER.SVME, cr0=CR0.PE | paging)
    assert skipped(played)
    assert played.entry.vmcb.save.efer == kept | EFER.SVME


@pytest.mark.parametrize(
    ("old", "new", "cr0"),
    [
        (0, EFER.SVME, CR0.PE),
        (0, 1 << 1, CR0.PE),
        (0, 1 << 63, CR0.PE),
        (0, EFER.LME, CR0.PE | CR0.PG),
        (EFER.LME | EFER.LMA, 0, CR0.PE | CR0.PG),
        (0, EFER.LMSLE, CR0.PE),
        (0, EFER.MCOMMIT, CR0.PE),
        (0, EFER.UAIE, CR0.PE),
    ],
)
def test_efer_refuses_what_the_cpu_would(access, old, new, cr0):
    played = access(WRITE, msr.EFER, new, efer=old | EFER.SVME, cr0=cr0)
    assert refused(played)
    assert played.entry.vmcb.save.efer == old | EFER.SVME


@pytest.mark.parametrize(
    ("old", "new", "cr0", "kept", "told"),
    [
        (0, EFER.SCE | EFER.LME, CR0.PE, EFER.SCE | EFER.LME, 0),
        (0, EFER.SCE | EFER.SVME, CR0.PE, EFER.SCE, 0),
        (0, EFER.SCE | 1 << 1 | EFER.LMSLE, CR0.PE, EFER.SCE, 1),
        (EFER.LME | EFER.LMA, EFER.NXE, CR0.PE | CR0.PG, EFER.NXE | EFER.LMA, 1),
    ],
)
def test_a_processor_that_takes_any_efer(access, old, new, cr0, kept, told):
    calls = []
    able = {"takes_any_efer": True}
    played = access(
        WRITE,
        msr.EFER,
        new,
        efer=old | EFER.SVME,
        cr0=cr0,
        capabilities=able,
        tolerated=lambda vcpu: calls.append(vcpu),
    )
    assert skipped(played)
    assert played.entry.vmcb.save.efer == kept | EFER.SVME
    assert len(calls) == told


def test_an_old_cpu_has_lmsle_and_little_else(access):
    old = {(0x8000_0001, 0): (0, 0, 0, 1 << 29)}
    assert skipped(access(WRITE, msr.EFER, EFER.LMSLE | EFER.LME, old, efer=EFER.SVME))
    assert refused(access(WRITE, msr.EFER, EFER.NXE, old, efer=EFER.SVME))


def test_lmsle_is_refused_where_vmrun_would(access):
    old = {(0x8000_0001, 0): (0, 0, 0, 1 << 29)}
    able = {"lmsle": False}
    assert refused(access(WRITE, msr.EFER, EFER.LMSLE, old, efer=EFER.SVME, capabilities=able))


def test_vm_cr_reads_zero_and_forgets(access):
    assert skipped(access(WRITE, msr.VM_CR, msr.VM_CR_R_INIT))
    played = access(READ, msr.VM_CR)
    assert skipped(played)
    assert (played.entry.vmcb.save.rax, played.entry.gprs.rdx) == (0, 0)


def test_vm_hsave_pa_is_a_shadow(play):
    def write(processor):
        processor.gprs.rcx, processor.vmcb.save.rax, processor.gprs.rdx = msr.VM_HSAVE_PA, 0x4567_8000, 0x12
        return WRITE(processor)

    def clobber(processor):
        processor.vmcb.save.rax = processor.gprs.rdx = HIGH
        return READ(processor)

    played = play(write, clobber)
    assert (played.entry.vmcb.save.rax, played.entry.gprs.rdx) == (0x4567_8000, 0x12)


@pytest.mark.parametrize("value", [1, 0xFFF, 1 << 40, 1 << 63])
def test_vm_hsave_pa_refuses_what_is_no_page(access, value):
    played = access(WRITE, msr.VM_HSAVE_PA, value)
    assert refused(played)
    assert played.vm.vcpu.vm_hsave_pa == 0


@pytest.mark.parametrize("step", [READ, WRITE])
def test_a_register_beyond_the_map_does_not_exist(access, step):
    assert refused(access(step, 0x4000_0000))


def test_a_refusal_that_is_forced_is_shown(access, watch):
    observer = watch()
    assert refused(access(READ, 0x4000_0000, mask=1 << Vector.GP, observers=[observer]))
    assert [(exit.event, exit.synthesized) for exit in observer.seen] == [(GP, True)]
