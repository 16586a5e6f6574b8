import threading

import pytest

from trapline.arch.events import Event, EventType
from trapline.arch.exits import ExitCode
from trapline.arch.registers import CR0, EFER
from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.processor import Outcome
from trapline.machine.record import Record
from trapline.machine.scripted import until_kicked, vmexit
from trapline.machine.scripted_board import ScriptedBoard, startup

UD, PF = 1 << Vector.UD, 1 << Vector.PF
UD_EXIT = vmexit(0x46)
STARTED = ((0, Outcome.RESET), (1, Outcome.INIT), (1, startup(0x9A)))


@pytest.fixture
def build():
    def build(*script, cpus=2, **options):
        return Vm((board := ScriptedBoard(script, cpus=cpus)).cpus[0], board=board, **options)

    return build


def entries(vm, number):
    return vm.vcpus[number].processor.entries


def commands(vm):
    return vm.processor.commands


def test_a_cpu_starts_where_its_startup_ipi_says(build):
    vm = build(*STARTED, (1, UD_EXIT), mask=UD)
    assert [vcpu.number for vcpu in vm.vcpus] == [0, 1]
    vm.run()
    entry = entries(vm, 1)[2]
    save = entry.vmcb.save
    assert (save.cs.selector, save.cs.base, save.rip, save.rflags) == (0x9A00, 0x9A000, 0, 2)
    assert (save.efer, entry.gprs.rdx) == (EFER.SVME, vm.vcpus[1].processor.signature)
    assert entry.vmcb.control.intercept_exceptions == UD
    assert entries(vm, 1)[2].event is None
    assert vm.vcpus[1].processor.vmcb.control.event_inj & 0xFF == Vector.UD


def test_a_cpu_waits_after_a_reset_and_after_an_init(build):
    waits = []

    def note(_):
        waits.append([vcpu.waits for vcpu in vm.vcpus])
        return Outcome.KICKED

    vm = build((0, Outcome.RESET), (0, note), (1, startup(8)), (0, note), (1, Outcome.INIT), (0, note))
    vm.run()
    assert waits == [[False, True], [False, False], [False, True]]


def test_the_guest_is_entered_on_the_boot_cpu_alone(build):
    def enter(save, gprs):
        save.rip = 0x7C00

    vm = build((0, Outcome.RESET), enter=enter)
    vm.run()
    assert [vcpu.save.rip for vcpu in vm.vcpus] == [0x7C00, 0xFFF0]


def test_an_init_forgets_what_was_under_way_on_its_cpu_alone(build):
    def interrupted(processor):
        processor.vmcb.save.cr0 = CR0.PE | CR0.CD
        processor.vmcb.save.star = 7
        return vmexit(0x4E, info_2=0x1000, vectoring=Event(0x20, EventType.INTR))(processor)

    vm = build(*STARTED, (1, interrupted), (0, UD_EXIT), (1, Outcome.INIT), mask=UD | PF)
    vm.run()
    first, second = vm.vcpus
    assert second.vectoring is None
    assert second.control.event_inj == 0
    assert (second.save.cr0, second.save.star, second.save.rip) == (CR0.CD | CR0.ET, 7, 0xFFF0)
    assert first.control.event_inj & 0xFF == Vector.UD


def test_a_reset_of_the_machine_resets_every_cpu(build):
    def spoil(processor):
        for vcpu in vm.vcpus:
            vcpu.save.cr3 = 0x1000
        return Outcome.RESET

    vm = build(*STARTED, (0, spoil), (0, Outcome.OFF), reboots=True)
    assert vm.run().reason is StopReason.OFF
    assert [(vcpu.save.cr3, vcpu.waits, vcpu.resets) for vcpu in vm.vcpus] == [(0, False, 2), (0, True, 2)]
    assert build(*STARTED, (0, Outcome.RESET)).run().reason is StopReason.RESET


def test_records_have_the_number_of_their_cpu(build):
    taken = []
    recording = Recording(lambda data: taken.append(Record.from_buffer_copy(data)))
    vm = build(*STARTED, (0, UD_EXIT), (1, UD_EXIT), (0, UD_EXIT), mask=UD, recorders=(recording,))
    vm.run()
    assert [record.vcpu for record in taken] == [0, 1, 0]


def test_exceptions_of_two_cpus_do_not_combine(build):
    delivering = Event(0x20, EventType.INTR)
    vm = build(
        *STARTED, (0, vmexit(ExitCode.CPUID, vectoring=delivering)), (1, vmexit(0x4E)), (0, Outcome.OFF), mask=PF
    )
    vm.run()
    assert entries(vm, 0)[-1].event == delivering
    assert vm.vcpus[1].control.event_inj & 0xFF == Vector.PF


def test_a_shutdown_of_any_cpu_ends_the_run_with_all_paused(build):
    vm = build(*STARTED, (1, vmexit(ExitCode.SHUTDOWN)))
    assert vm.run().reason is StopReason.SHUTDOWN
    assert vm.vcpu is vm.vcpus[1]
    assert commands(vm)[-1] == "pause"


def test_after_a_deadline_the_cpus_may_go_on(build):
    vm = build(*STARTED, (1, Outcome.DEADLINE), (0, until_kicked), (0, Outcome.OFF))
    assert vm.run(1.0).reason is StopReason.TIMEOUT
    assert "pause" not in commands(vm)
    vm.interrupt()
    assert vm.run().reason is StopReason.INTERRUPTED
    assert commands(vm).count("pause") >= 1


def test_an_exception_at_which_a_cpu_stopped_is_delivered_by_the_next_run(build, watch):
    vm = build(*STARTED, (1, UD_EXIT), (0, UD_EXIT), mask=UD)
    vm.observers.add(watch(UD, [Verdict.STOP]))
    stop = vm.run()
    assert (stop.reason, vm.vcpu.number) == (StopReason.EXCEPTION, 1)
    assert vm.vcpus[1].control.event_inj == 0
    assert vm.run().reason is StopReason.OFF
    assert vm.vcpus[1].control.event_inj & 0xFF == Vector.UD


def test_a_new_mask_is_that_of_every_cpu(build):
    reached = threading.Event()

    def spin(processor):
        reached.set()
        return until_kicked(processor)

    vm = build(*STARTED, (0, spin), (1, Outcome.OFF), mask=UD)
    runner = threading.Thread(target=vm.run)
    runner.start()
    assert reached.wait(10)
    vm.set_exception_mask(PF)
    runner.join()
    assert [vcpu.control.intercept_exceptions for vcpu in vm.vcpus] == [PF, PF]
    assert "pause" in commands(vm)


def test_breakpoints_are_those_of_every_cpu(build):
    vm = build(*STARTED, (1, Outcome.BREAKPOINT))
    vm.set_breakpoints(frozenset({0x1000}))
    assert vm.run().reason is StopReason.BREAKPOINT
    assert vm.vcpu.number == 1
    assert entries(vm, 0)[0].breakpoints == entries(vm, 1)[-1].breakpoints == {0x1000}


def test_a_decision_is_about_the_cpu_that_stopped(build, watch):
    vm = build(*STARTED, (1, UD_EXIT), mask=UD)
    vm.observers.add(watch(UD, [Verdict.STOP]))
    vm.run()
    vm.decide(Verdict.DISCARD)
    vm.vcpu = vm.vcpus[0]
    with pytest.raises(UsageError, match="not stopped at an exception"):
        vm.decide(Verdict.DISCARD)
    vm.run()
    assert vm.vcpus[1].control.event_inj == 0
