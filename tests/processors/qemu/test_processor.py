import threading
import time

import pytest

from tests.processors.qemu.scripted_qemu import FACTS, MIB, described, leave, power_on
from trapline.arch.exits import ExitCode, is_intercepted
from trapline.arch.registers import EFER
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.errors import LaunchError, ProcessorError, ProcessorLost, UsageError
from trapline.machine.processor import Outcome, Watchpoint
from trapline.machine.record import RECORD_SIZE, RecordFlags
from trapline.processors.qemu import firmware, qmp, watchdog
from trapline.processors.qemu.facts import key_of, load, store
from trapline.processors.qemu.layout import (
    MSRPM_AT,
    NESTED_AT,
    RING_RECORDS,
    SIZE,
    TOKEN_AT,
    Command,
    Policy,
    base_for,
)
from trapline.processors.qemu.monitor import monitor
from trapline.processors.qemu.placement import address


def test_a_machine_begins_with_a_reset(start):
    processor, qemu = start(power_on)
    qemu.shared.vmcb.control.nrip = 5
    assert processor.run(None) is Outcome.RESET
    control = processor.vmcb.control
    assert (control.nrip, control.asid, control.np_control) == (0, 1, 0)
    base = base_for(40)
    assert base <= control.msrpm_base_pa < base + SIZE
    assert (qemu.shared.mailbox.reset, qemu.shared.mailbox.open_shadow) == (0, 0)
    assert processor.signature == 0x663
    assert processor.run(None) is Outcome.OFF
    assert processor.exit_status is None


def test_the_shadow_is_opened_at_power_on_only(start):
    def first(qemu):
        power_on(qemu)
        qemu.shared.mailbox.open_shadow = 1

    processor, qemu = start(first)
    assert processor.run(None) is Outcome.RESET
    assert qemu.shared.mailbox.open_shadow == 0


def test_an_isolated_machine_is_refused_a_device_that_reaches_all_memory(start):
    processor, qemu = start(power_on, isolated=True)
    qemu.devices += qemu.devices.replace("i440FX", "e1000")
    with pytest.raises(UsageError, match="cannot keep e1000"):
        processor.run(None)


@pytest.mark.parametrize("isolated", [False, True])
def test_the_firmware_is_told_where_the_memory_goes(start, isolated):
    processor, qemu = start(described(0x3024), power_on, isolated=isolated)
    assert processor.run(None) is Outcome.RESET
    assert qemu.shared.mailbox.base_high == 8
    control, base = processor.vmcb.control, base_for(36)
    assert (control.msrpm_base_pa, control.ncr3) == (base + MSRPM_AT, (base + NESTED_AT) * isolated)
    assert processor.capabilities.physical_bits == 36
    assert qemu.commands == [None, Command.RESUME]


def test_a_cpu_without_long_mode_is_told(start):
    with pytest.raises(UsageError, match="CPU qemu64 has no long mode"):
        start(described(0x3024, 0))[0].run(None)


@pytest.fixture
def impatient(monkeypatch):
    """The watchdog barks after some hundredths of a second."""
    for module, name in ((watchdog, "_INTERVAL"), (watchdog, "_PATIENCE"), (qmp, "_STATUS_SECONDS")):
        monkeypatch.setattr(module, name, 0.02)


def test_a_monitor_that_never_reports_is_given_up(start, impatient):
    go_on = threading.Event()
    processor, _ = start(described(40), described(40), lambda qemu: go_on.wait(10))
    try:
        with pytest.raises(LaunchError, match=r"has not reported for \d seconds: the CPU does not get from"):
            processor.run(None)
    finally:
        go_on.set()


def test_a_monitor_that_does_not_answer_is_lost(start, impatient):
    processor, qemu = start(power_on)
    processor.run(None)
    qemu._closed.set()
    qemu._thread.join(10)
    with pytest.raises(ProcessorLost, match="has not reported"):
        processor.cpuid(0, 0)


def test_an_isolated_machine_gets_nested_paging_and_its_guard(start):
    def out_to_our_device(qemu):
        qemu.shared.vmcb.save.rax = 0x8000_F700
        leave(0x7B, 0xCF8 << 16 | 1 << 6)(qemu)

    processor, qemu = start(power_on, out_to_our_device, isolated=True)
    processor.run(None)
    processor.intercepts_changed(0)
    assert (processor.vmcb.control.np_control, processor.vmcb.control.ncr3) == (1, base_for(40) + NESTED_AT)
    assert processor.run(None) is Outcome.OFF
    assert qemu.outputs == [(0xCF8, 0x0000_F700)]


def test_a_cpu_without_svm_is_told(start):
    def without_svm(qemu):
        power_on(qemu)
        qemu.shared.mailbox.efer = EFER.LME

    with pytest.raises(ProcessorError, match="does not enable SVM"):
        start(without_svm)[0].run(None)


def test_only_our_own_bytes_are_taken_out_of_the_bios_in_ram(start, bios):
    at = MIB - len(bios)

    def shadowed(qemu):
        power_on(qemu)
        qemu.ram[at:MIB] = bios
        for offset, ours in firmware.wrap(bios, unlock_svm=True).patches:
            qemu.ram[at + offset : at + offset + len(ours)] = ours
        qemu.ram[at + 7] = 0xEE  # the guest wrote there

    def changed(qemu):
        power_on(qemu)
        qemu.ram[MIB - 16] = 0xAB

    processor, qemu = start(shadowed, changed)
    processor.run(None)
    expected = bytearray(bios)
    expected[7] = 0xEE
    assert qemu.ram[at:MIB] == expected
    assert processor.run(None) is Outcome.RESET
    expected[-16] = 0xAB
    assert qemu.ram[at:MIB] == expected  # a reset copies nothing: the guest's own changes stay


def test_of_uefi_firmware_the_shadow_is_what_is_in_rom(start, uefi):
    def overwritten(qemu):
        assert qemu.shared.mailbox.open_shadow == 1
        power_on(qemu)
        qemu.ram[MIB - 0x20000 : MIB] = b"g" * 0x20000

    processor, qemu = start(power_on, overwritten, leave(0x7F), bios=uefi)
    for _ in range(2):
        processor.run(None)
        assert qemu.ram[MIB - 0x20000 : MIB] == uefi[-0x20000:]


def test_the_guest_starts_where_the_bios_would(start):
    processor, qemu = start(power_on, leave(0x7F))
    processor.run(None)
    processor.vmcb.save.cs.selector, processor.vmcb.save.rip = 0xF000, 0xFFF0
    assert processor.run(None) is Outcome.VMEXIT
    cs = processor.vmcb.save.cs
    assert (cs.selector, cs.base, processor.vmcb.save.rip) == (0xF000, 0xF0000, 0xE05B)
    assert qemu.commands == [None, Command.LOAD_AND_RESUME]


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_the_plans_of_the_monitor(start, accelerator):
    processor, qemu = start(power_on, accelerator=accelerator)
    processor.run(None)
    wanted = 1 << Vector.UD | 1 << Vector.PF | 1 << Vector.BP | 1 << Vector.DF
    processor.vmcb.control.intercept_exceptions = wanted
    processor.intercepts_changed(wanted & ~(1 << Vector.PF))
    policy = {vector: Policy(plan.policy) for vector, plan in enumerate(qemu.shared.plans)}
    silent = Policy.FORWARD if accelerator == "tcg" else Policy.ASK
    assert policy[Vector.UD] is Policy.RECORD
    assert policy[Vector.PF] is policy[Vector.BP] is policy[Vector.DF] is Policy.ASK
    assert policy[Vector.GP] is policy[Vector.DE] is silent
    page_fault = qemu.shared.plans[Vector.PF]
    assert page_fault.event == 0x8000_0B0E
    assert page_fault.flags == RecordFlags.FORWARDED | RecordFlags.HAS_ERROR_CODE | RecordFlags.HAS_ADDRESS
    assert qemu.shared.plans[Vector.UD].event == 0x8000_0306
    rf = {vector for vector, plan in enumerate(qemu.shared.plans) if plan.rflags}
    assert (Vector.UD in rf) == (accelerator == "kvm")
    assert not rf & {Vector.DB, Vector.BP, Vector.OF, Vector.DF}


@pytest.mark.parametrize(("accelerator", "end"), [("tcg", 2 * MIB), ("kvm", 0)])
def test_the_monitor_reads_instructions_in_ram_under_tcg(start, accelerator, end):
    _, qemu = start(power_on, accelerator=accelerator)
    assert qemu.shared.mailbox.ram_low == end


def test_exits_that_are_not_the_hypervisors_stay_below_it(start):
    processor, qemu = start(power_on, leave(0x46), leave(0x4D, 8), leave(0x46))
    processor.run(None)
    processor.vmcb.control.intercept_exceptions = 1 << Vector.UD
    processor.intercepts_changed(0)
    assert processor.run(None) is Outcome.VMEXIT
    assert processor.run(None) is Outcome.VMEXIT
    assert processor.vmcb.control.exit_code == 0x46
    assert qemu.commands == [None] + [Command.LOAD_AND_RESUME] * 3
    assert processor.statistics.exits == 4
    assert processor.statistics.stopped > 0


def test_cpuid_leaves_the_registers_alone(start):
    processor, _ = start(power_on)
    processor.run(None)
    gprs = processor.gprs
    gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx = 10, 11, 12, 13
    assert processor.cpuid(0x100, 0x200) == (0x101, 2, 0x203, 4)
    assert (gprs.rax, gprs.rbx, gprs.rcx, gprs.rdx) == (10, 11, 12, 13)


def test_records_are_taken_in_order_around_the_end_of_the_ring(start):
    def write(count):
        def step(qemu):
            mailbox, ring = qemu.shared.mailbox, qemu.shared.ring
            for number in range(mailbox.ring_head, mailbox.ring_head + count):
                place = number % RING_RECORDS * RECORD_SIZE
                ring[place : place + 8] = number.to_bytes(8, "little")
            mailbox.ring_head += count
            leave(0x7F)(qemu)

        return step

    taken = []

    def sink(records):
        assert len(records) % RECORD_SIZE == 0
        taken.extend(int.from_bytes(records[at : at + 8], "little") for at in range(0, len(records), RECORD_SIZE))

    processor, qemu = start(power_on, write(RING_RECORDS - 2), write(5))
    processor.on_records(sink)
    processor.run(None)
    processor.run(None)
    assert len(taken) == RING_RECORDS - 2
    processor.run(None)
    assert taken == list(range(RING_RECORDS + 3))
    assert qemu.shared.mailbox.ring_tail == RING_RECORDS + 3


def test_a_deadline_leaves_the_guest_running(start):
    go_on = threading.Event()

    def slow(qemu):
        go_on.wait(10)
        leave(0x7F)(qemu)

    processor, qemu = start(power_on, slow)
    processor.run(None)
    assert processor.run(time.monotonic() + 0.05) is Outcome.DEADLINE
    go_on.set()
    assert processor.run(time.monotonic() + 10) is Outcome.VMEXIT
    assert qemu.commands == [None, Command.LOAD_AND_RESUME]


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_a_kick_stops_a_running_guest_by_an_nmi(start, accelerator):
    def until_nmi(qemu):
        assert qemu.nmi.wait(10)
        leave(0x61)(qemu)

    processor, qemu = start(power_on, until_nmi, leave(0x7F), accelerator=accelerator)
    processor.run(None)
    processor.intercepts_changed(0)
    kicker = threading.Timer(0.05, processor.kick)
    kicker.start()
    assert processor.run(None) is Outcome.KICKED
    kicker.join()
    assert qemu.commands[-1] == Command.ASIDE
    assert qemu.asides == [address(qemu.shared, monitor.ABSORB)]
    assert processor.run(None) is Outcome.VMEXIT


def test_an_smi_that_comes_before_the_nmi_of_a_kick_is_the_guests(start):
    """The guest resumes, takes it, and leaves by the NMI again."""

    def until_nmi(qemu):
        assert qemu.nmi.wait(10)
        leave(0x61)(qemu)

    processor, qemu = start(power_on, until_nmi, leave(0x61))
    processor.run(None)
    processor.intercepts_changed(0)
    qemu.answers = iter([(ExitCode.SMI, 0)])
    kicker = threading.Timer(0.05, processor.kick)
    kicker.start()
    assert processor.run(None) is Outcome.KICKED
    kicker.join()
    aside = Command.ASIDE
    assert qemu.commands == [None, Command.LOAD_AND_RESUME, aside, Command.LOAD_AND_RESUME, aside]


def access(write, number, value=0, flags=2):
    """The guest executes RDMSR or WRMSR, of 2 bytes, at 0x7000."""

    def step(qemu):
        save, gprs = qemu.shared.vmcb.save, qemu.shared.gprs
        save.rip, save.rflags, save.rax = 0x7000, flags, value & 0xFFFF_FFFF
        gprs.rcx, gprs.rdx = number, value >> 32
        qemu.ram[0x7000:0x7002] = b"\x0f\x30" if write else b"\x0f\x32"
        leave(ExitCode.MSR, int(write))(qemu)

    return step


@pytest.mark.parametrize(
    ("write", "number", "answer", "expected", "label"),
    [
        (False, 0x4000_0000, 0x1234_5678_9ABC, 0x1234_5678_9ABC, monitor.RDMSR),
        (False, 0xFFFF_FF00, 0, 0, monitor.RDMSR),
        (False, 0x34, 0x1_0000_0000, 0xFFFF_FFFF, monitor.RDMSR),  # less the SMI of the firmware
        (True, 0x4000_0000, 0x55_0000_0066, 0x55_0000_0066, monitor.WRMSR),
    ],
)
def test_msrs_outside_the_permission_map_are_accessed_for_the_guest(start, write, number, answer, expected, label):
    processor, qemu = start(power_on, access(write, number, answer), leave(0x7F))
    processor.run(None)
    processor.intercepts_changed(0)
    qemu.answers = iter([(ExitCode.VMMCALL, answer)])
    assert processor.run(None) is Outcome.VMEXIT
    save = qemu.shared.vmcb.save
    assert (qemu.shared.vmcb.control.exit_code, save.rip) == (0x7F, 0x7002)
    assert qemu.shared.gprs.rdx << 32 | (save.rax if not write else answer & 0xFFFF_FFFF) == expected
    assert qemu.asides == [address(qemu.shared, label)]
    assert qemu.aside.control.asid != qemu.shared.vmcb.control.asid


def test_an_smi_that_comes_before_is_the_guests(start):
    """The access executes again."""
    processor, qemu = start(power_on, access(False, 0x4000_0000), leave(0x7F))
    processor.run(None)
    processor.intercepts_changed(0)
    qemu.answers = iter([(ExitCode.SMI, 0x55)])
    assert processor.run(None) is Outcome.VMEXIT
    save = qemu.shared.vmcb.save
    assert (qemu.shared.vmcb.control.exit_code, save.rip, save.rax) == (0x7F, 0x7000, 0)


def test_what_they_refuse_is_the_guests_protection_fault(start):
    processor, qemu = start(power_on, access(True, 0x4000_0000))
    processor.run(None)
    qemu.shared.vmcb.control.intercept_exceptions = 1 << Vector.GP
    processor.intercepts_changed(0)
    qemu.answers = iter([(0x40 + Vector.GP, 0)])
    assert processor.run(None) is Outcome.VMEXIT
    control = qemu.shared.vmcb.control
    assert (control.exit_code, control.exit_info_1, qemu.shared.vmcb.save.rip) == (0x40 + Vector.GP, 0, 0x7000)


def test_a_single_step_follows_them(start):
    processor, qemu = start(power_on, access(False, 0x4000_0000, flags=0x102))
    processor.run(None)
    qemu.shared.vmcb.control.intercept_exceptions = 1 << Vector.DB
    processor.intercepts_changed(0)
    assert processor.run(None) is Outcome.VMEXIT
    assert (qemu.shared.vmcb.control.exit_code, qemu.shared.vmcb.save.rip) == (0x41, 0x7002)


@pytest.mark.parametrize(("number", "accelerator"), [(0xC000_0080, "tcg"), (0x4000_0000, "kvm"), (0x34, "kvm")])
def test_other_msrs_are_the_hypervisors(start, number, accelerator):
    processor, qemu = start(power_on, access(False, number), accelerator=accelerator)
    processor.run(None)
    processor.intercepts_changed(0)
    assert processor.run(None) is Outcome.VMEXIT
    assert (qemu.shared.vmcb.control.exit_code, qemu.asides) == (ExitCode.MSR, [])


def test_a_kick_of_a_stopped_guest_needs_no_nmi(start):
    processor, qemu = start(power_on)
    processor.run(None)
    processor.kick()
    assert processor.run(None) is Outcome.KICKED
    assert not qemu.nmi.is_set()


def test_a_shutdown_is_left_to_the_machine(start):
    processor, qemu = start(power_on, power_on)
    processor.run(None)
    processor.shutdown()
    assert processor.run(None) is Outcome.RESET
    assert qemu.commands == [None, Command.SHUTDOWN]


@pytest.mark.parametrize(("status", "words"), [(-9, "killed by SIGKILL"), (1, "QEMU failed: out of order")])
def test_a_qemu_that_dies_is_lost(start, status, words):
    processor, _ = start(power_on, lambda qemu: qemu.end(status))
    processor.run(None)
    with pytest.raises(ProcessorLost, match=words):
        processor.run(None)


@pytest.mark.parametrize(("status", "found"), [(0, None), (3, 3), (33, 33)])
def test_a_guest_that_ends_the_machine_says_how(start, status, found):
    processor, _ = start(power_on, lambda qemu: qemu.end(status))
    processor.run(None)
    assert processor.run(None) is Outcome.OFF
    assert processor.exit_status == found


@pytest.mark.parametrize("status", [1, 33])
def test_an_out_to_the_exit_device_is_the_guests_last_instruction(start, status):
    def leave(qemu):
        qemu.shared.vmcb.control.exit_code, qemu.shared.vmcb.control.exit_info_1 = ExitCode.IOIO, 0xF4 << 16 | 1 << 4
        qemu.shared.vmcb.save.rax = 0x1234

    processor, qemu = start(power_on, leave, options=("-device", "isa-debug-exit,iobase=0xf4,iosize=4"))
    processor.run(None)
    qemu.exit_status = status
    assert processor.run(None) is Outcome.LEAVING  # a failure: the state can be read
    assert processor.run(None) is Outcome.OFF
    assert processor.exit_status == status
    assert qemu.commands[-1] == Command.EXIT
    assert (qemu.shared.mailbox.port, qemu.shared.mailbox.value) == (0xF4, 0x34)


def test_a_qemu_that_never_reports_did_not_start(start):
    processor, _ = start(lambda qemu: qemu.end(1))
    with pytest.raises(LaunchError, match="did not start"):
        processor.run(None)


def test_a_qemu_that_dies_while_the_guest_is_stopped_is_lost(start):
    processor, qemu = start(power_on)
    processor.run(None)
    qemu._closed.set()
    qemu._thread.join(10)
    qemu.end(0)
    with pytest.raises(ProcessorLost, match="while the guest was stopped"):
        processor.cpuid(0, 0)


def test_closing_twice_is_safe(start):
    processor, _ = start(power_on)
    processor.run(None)
    processor.close()
    processor.close()


@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_what_it_can_do(start, accelerator):
    tcg = accelerator == "tcg"
    able = start(power_on, accelerator=accelerator)[0].capabilities
    assert (able.lmsle, able.hides_svm, able.takes_any_efer, able.forwards_set_rf) == (
        tcg,
        tcg,
        tcg,
        not tcg,
    )
    assert able.name == f"QEMU ({accelerator})"
    assert FORCEABLE >> Vector.TS & 1


@pytest.mark.parametrize("value", [True, False])
def test_what_it_can_do_depends_on_the_facts(start, value):
    facts = FACTS._replace(faults_set_rf=value, interrupts_keep_rf=not value, ts_error_code=value)
    able = start(power_on, facts=facts)[0].capabilities
    assert (able.sets_rf, able.interrupts_keep_rf, able.ts_error_code) == (value, not value, value)


def test_the_bios_goes_into_ram_once_at_the_first_power_on(start, bios):
    at = MIB - len(bios)

    def first(qemu):
        qemu.shared.mailbox.token = 0x1122
        power_on(qemu)

    processor, qemu = start(first, power_on)
    assert processor.run(None) is Outcome.RESET
    assert processor._machine.block.found == (TOKEN_AT, (0x1122).to_bytes(8, "little"))
    assert qemu.shared.mailbox.token == 0
    assert qemu.ram[at:MIB] == bios
    qemu.ram[at + 7] = 0xEE
    assert processor.run(None) is Outcome.RESET
    assert qemu.ram[at + 7] == 0xEE


def test_waking_up_is_told_from_a_reset(start):
    processor, qemu = start(power_on, power_on, power_on)
    assert processor.run(None) is Outcome.RESET
    qemu.woke_up = True
    assert processor.run(None) is Outcome.WOKEN
    qemu.woke_up = False
    assert processor.run(None) is Outcome.RESET


def test_an_old_qemu_is_refused(start):
    processor, _ = start(power_on)
    processor._machine.qmp.version = lambda: (6, 2, 0)
    with pytest.raises(LaunchError, match=r"QEMU 6\.2\.0; trapline needs 7\.2"):
        processor.run(None)


def test_a_qemu_that_is_not_the_one_that_was_probed_is_told(start, monkeypatch, tmp_path):
    program = tmp_path / "qemu"
    program.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = key_of(str(program))
    store(key, FACTS)
    processor, _ = start(power_on)
    processor._machine.power_on._command, processor._machine.qmp.version = (str(program),), lambda: (10, 0, 13)
    with pytest.raises(ProcessorError, match=r"is QEMU 10\.0\.13 now, and was 7\.2\.22; run it again"):
        processor.run(None)
    assert load(key) is None


def test_breakpoints_need_tcg(start):
    processor, _ = start(power_on, accelerator="kvm")
    processor.run(None)
    with pytest.raises(UsageError, match="--accel tcg has them"):
        processor.set_breakpoints(frozenset((0x4000,)))
    with pytest.raises(UsageError, match="--accel tcg has them"):
        processor.set_watchpoints((Watchpoint(0x8000, 4, False),))


def test_breakpoints_force_exits_and_watchpoints_leave_nothing_to_the_monitor(start):
    processor, qemu = start(power_on)
    processor.run(None)

    def want_nothing_else():
        control = processor.vmcb.control
        control.intercept_exceptions, control.intercept_misc1, control.intercept_misc2 = 1 << Vector.UD, 0, 0
        processor.intercepts_changed(1 << Vector.UD)

    want_nothing_else()

    def seen():
        control = processor.vmcb.control
        policies = {Policy(plan.policy) for plan in qemu.shared.plans}
        return is_intercepted(control, ExitCode.SWINT), is_intercepted(control, ExitCode.INTR), policies

    plain = {Policy.ASK, Policy.FORWARD, Policy.RECORD}
    assert seen() == (False, False, plain)
    processor.set_breakpoints(frozenset((0x4000,)))
    assert seen() == (True, False, plain)
    processor.set_watchpoints((Watchpoint(0x8000, 4, False),))
    for _ in range(2):
        assert seen() == (True, True, {Policy.ASK})
        assert processor.vmcb.control.intercept_exceptions & FORCEABLE == FORCEABLE
        want_nothing_else()  # as the hypervisor does after a reset
    processor.set_breakpoints(frozenset())
    processor.set_watchpoints(())
    assert seen() == (False, False, plain)
    assert processor.vmcb.control.intercept_exceptions == 1 << Vector.UD | 1 << Vector.GP


def test_an_interrupt_waits_for_a_guest_that_is_made_to_leave_while_its_vector_is_fetched(start):
    """It may be withdrawn: then the guest executes with the IDT that has no length, and may come to a breakpoint."""
    limits = []

    def breakpoint_comes(qemu):
        limits.append(qemu.shared.vmcb.save.idtr.limit)
        processor._stops._outcome = Outcome.BREAKPOINT
        leave(ExitCode.SWINT)(qemu)

    processor, _ = start(power_on, leave(ExitCode.INTR), breakpoint_comes)
    processor.run(None)
    processor._stops.apply = lambda: None
    processor._stops.watchpoints = (Watchpoint(0x8000, 4, False),)
    processor.vmcb.save.idtr.limit = 0xFFF
    assert processor.run(None) is Outcome.BREAKPOINT
    assert limits == [0]
    assert processor.vmcb.save.idtr.limit == 0xFFF
    assert is_intercepted(processor.vmcb.control, ExitCode.INTR)


@pytest.mark.parametrize("reason", ["host-signal", "host-qmp-quit"])
def test_a_qemu_that_somebody_ended_is_not_a_power_off(start, reason):
    processor, qemu = start(power_on)
    qemu.reason = reason
    assert processor.run(None) is Outcome.RESET
    with pytest.raises(ProcessorLost):
        processor.run(None)


def test_a_panic_is_told(start):
    processor, qemu = start(power_on)
    assert processor.run(None) is Outcome.RESET
    qemu.reason = "guest-panic"
    assert processor.run(None) is Outcome.OFF
    assert processor.hints == ["the guest reported that it panicked (pvpanic)"]


def test_a_qemu_that_ends_instead_of_a_reset(start):
    processor, qemu = start(power_on)
    assert processor.run(None) is Outcome.RESET
    qemu.reason = "guest-reset"
    assert [processor.run(None), processor.run(None)] == [Outcome.RESET, Outcome.OFF]
