import contextlib
import logging
import threading

import pytest

from trapline.arch import msr
from trapline.arch.exits import ExitCode, clear_intercept, is_intercepted
from trapline.arch.vectors import FORCEABLE, VECTORS, Vector
from trapline.errors import ProcessorError, ProcessorLost, UsageError
from trapline.hypervisor.intercepts import recalc_intercepts
from trapline.hypervisor.stop import StopReason
from trapline.machine.processor import Outcome
from trapline.machine.scripted import until_kicked, vmexit

UD, PF = 1 << Vector.UD, 1 << Vector.PF
UD_EXIT = vmexit(0x46)


def guarded(entry, number):
    bit = msr.msrpm_bit(number)
    pair = entry.msrpm[bit // 8] >> bit % 8 & 3
    return bool(pair & 1), bool(pair & 2)


@pytest.mark.parametrize("row", [row for row in VECTORS if row.refused], ids=lambda row: str(row.vector))
def test_a_vector_that_cannot_be_forced_is_an_error_when_it_is_named(build, row):
    with pytest.raises(UsageError) as error:
        build(mask=row.bit | PF)
    assert f"(vector {row.vector})" in str(error.value)
    assert row.refused in str(error.value)


@pytest.mark.parametrize("mask", [1 << 32, -1, -(1 << 32)])
def test_what_is_no_mask_is_an_error(build, mask):
    with pytest.raises(UsageError, match="not a mask of 32 exception vectors"):
        build(mask=mask)


def test_ts_is_left_out_where_its_error_code_is_unknown(build, caplog):
    mask = 1 << Vector.TS | UD
    with caplog.at_level(logging.WARNING):
        assert build(mask=mask).mask == mask
        assert not caplog.records
        assert build(mask=mask, capabilities={"ts_error_code": False, "name": "box"}).mask == UD
    assert "#TS is not intercepted: box gives no error code for it" in caplog.text


@pytest.mark.parametrize("mask", [0, UD, FORCEABLE])
def test_the_vmcb_intercepts_the_forced_exceptions(play, mask):
    assert play(mask=mask).entry.vmcb.control.intercept_exceptions == mask


@pytest.mark.parametrize(("hides_svm", "intercepted"), [(False, True), (True, False)])
def test_cpuid_is_intercepted_where_it_would_show_svm(play, hides_svm, intercepted):
    control = play(capabilities={"hides_svm": hides_svm}).entry.vmcb.control
    assert is_intercepted(control, ExitCode.CPUID) is intercepted


def test_the_registers_of_svm_are_guarded(play):
    entry = play().entry
    assert is_intercepted(entry.vmcb.control, ExitCode.MSR)
    assert all(guarded(entry, number) == (True, True) for number in (msr.EFER, msr.VM_HSAVE_PA, msr.VM_CR))
    assert sum(byte.bit_count() for byte in entry.msrpm) == 6


def test_a_forced_bit_that_somebody_clears_comes_back(build, watch):
    vm = build(Outcome.DEADLINE, Outcome.KICKED, mask=FORCEABLE)
    vm.run()
    control = vm.processor.vmcb.control
    clear_intercept(control, 0x46)
    control.intercept_cr = control.intercept_misc3 = 0xFFFF
    recalc_intercepts(vm.vcpu)
    assert control.intercept_exceptions == FORCEABLE
    assert control.intercept_cr == control.intercept_misc3 == 0


def test_observers_do_not_change_what_is_forced(build, watch):
    observer = watch()
    vm = build(UD_EXIT, vmexit(0x7F), mask=UD, observers=[observer])
    vm.run()
    vm.observers.remove(observer)
    assert vm.processor.vmcb.control.intercept_exceptions == UD


def test_a_guest_that_has_not_run_gets_its_new_mask_when_it_starts(build):
    vm = build(mask=UD)
    vm.set_exception_mask(PF)
    assert vm.processor.vmcb.control.intercept_exceptions == 0  # nothing is written before the machine is there
    assert vm.processor.commands == []
    vm.run()
    assert vm.processor.entries[-1].vmcb.control.intercept_exceptions == PF


def test_a_stopped_guest_gets_its_new_mask_at_once(build):
    vm = build(vmexit(0x7F), mask=UD)
    assert vm.run().reason is StopReason.SHUTDOWN
    vm.set_exception_mask(PF)
    assert vm.mask == vm.processor.vmcb.control.intercept_exceptions == PF
    assert vm.processor.commands == []


def test_an_observer_changes_the_mask_at_once(build, watch):
    observer = watch(act=lambda vcpu, exit: vm.set_exception_mask(PF))
    vm = build(UD_EXIT, mask=UD, observers=[observer])
    assert vm.run().reason is StopReason.OFF
    entry = vm.processor.entries[-1]
    assert entry.vmcb.control.intercept_exceptions == vm.mask == PF
    assert entry.event.vector == Vector.UD  # the one under way is still delivered
    assert vm.processor.commands == []


def test_a_refused_mask_changes_nothing(build):
    vm = build(mask=UD)
    with pytest.raises(UsageError):
        vm.set_exception_mask(1 << 2)
    assert vm.mask == UD


@pytest.fixture
def running(build):
    """Return a function that starts a guest in a thread and waits until it is on its last step."""
    threads = []

    def running(*steps, **options):
        reached = threading.Event()

        def last(processor):
            reached.set()
            return until_kicked(processor)

        vm = build(*steps, last, **options)
        stops = []
        thread = threading.Thread(target=lambda: stops.append(vm.run()))
        thread.start()
        threads.append(thread)
        assert reached.wait(10)
        return vm, thread, stops

    yield running
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_another_thread_stops_the_guest_to_change_its_mask(running):
    vm, thread, stops = running(UD_EXIT, mask=UD)
    vm.set_exception_mask(PF)
    assert vm.mask == PF
    thread.join(10)
    assert vm.processor.commands == ["kick"]
    assert vm.processor.entries[-1].vmcb.control.intercept_exceptions == PF
    assert stops[0].reason is StopReason.OFF


def test_another_thread_looks_at_a_guest_that_runs(running):
    vm, thread, stops = running(UD_EXIT, mask=UD)
    seen = []
    vm.call_while_stopped(lambda vcpu: seen.append((vcpu, threading.get_ident())))
    thread.join(10)
    assert seen == [(vm.vcpu, thread.ident)]
    assert vm.mask == UD
    assert stops[0].reason is StopReason.OFF


def test_what_is_called_while_the_guest_is_stopped_is_called_in_order(build):
    """As what a user types: each piece comes to a serial port by a call of its own."""
    called = []

    def typed(processor):
        for each in range(3):
            vm.call_while_stopped(lambda vcpu, each=each: called.append(each))
        return until_kicked(processor)

    vm = build(typed)
    vm.run()
    assert called == [0, 1, 2]


def test_nobody_looks_at_a_guest_that_does_not_run(build):
    vm = build(mask=UD)
    vm.call_while_stopped(pytest.fail)
    assert vm.run().reason is StopReason.OFF
    vm.call_while_stopped(pytest.fail)
    assert vm.processor.commands == []


def test_another_thread_adds_an_observer_the_same_way(running, watch):
    vm, thread, _ = running(mask=UD | PF)
    vm.observers.add(watch(UD))
    thread.join(10)
    assert vm.processor.commands == ["kick"]
    assert vm.processor.entries[-1].forwarded == PF


def test_an_observer_that_comes_keeps_a_change_that_waits(build, watch):
    vm = build(Outcome.DEADLINE, mask=UD)
    vm.run()
    observer = watch(1 << Vector.GP)
    vm.set_exception_mask(PF | 1 << Vector.GP)  # the guest is not stopped: this waits
    vm.observers.add(observer)
    assert vm.mask == UD
    vm.run()
    assert vm.mask == PF | 1 << Vector.GP
    assert vm.processor.entries[-1].forwarded == PF


@pytest.mark.parametrize("error", [None, ProcessorLost("gone")])
def test_a_guest_that_ends_instead_lets_nobody_wait(build, error):
    reached = threading.Event()

    def end(processor):
        reached.set()
        assert processor.take_kick(10)
        if error:
            raise error
        return Outcome.OFF

    def run():
        with contextlib.suppress(ProcessorLost):
            vm.run()

    vm = build(end, mask=UD)
    thread = threading.Thread(target=run)
    thread.start()
    assert reached.wait(10)
    vm.set_exception_mask(PF)
    thread.join(10)
    assert vm.mask == PF


def test_a_guest_that_cannot_be_stopped_for_a_change_lets_nobody_wait(build, monkeypatch):
    reached = threading.Event()

    def last(processor):
        reached.set()
        return until_kicked(processor)

    def pause():
        raise ProcessorError("CPU 1 cannot be stopped")

    vm = build(last, mask=UD)
    monkeypatch.setattr(vm, "pause", pause)
    asker = threading.Thread(target=lambda: reached.wait(10) and vm.set_exception_mask(PF), daemon=True)
    asker.start()
    with pytest.raises(ProcessorError, match="cannot be stopped"):
        vm.run()
    asker.join(10)
    assert not asker.is_alive()


def test_after_a_deadline_the_guest_is_not_ours_until_it_is_stopped(build):
    vm = build(Outcome.DEADLINE, vmexit(0x7F), mask=UD)
    assert vm.run().reason is StopReason.TIMEOUT
    vm.set_exception_mask(PF)
    control = vm.processor.vmcb.control
    assert (vm.mask, control.intercept_exceptions) == (UD, UD)
    assert vm.processor.commands == ["kick"]
    assert vm.run().reason is StopReason.SHUTDOWN
    assert (vm.mask, control.intercept_exceptions) == (PF, PF)
    assert vm.processor.entries[-1].vmcb.control.intercept_exceptions == PF


def test_a_deadline_meets_a_thread_that_waits(build):
    reached, proceed = threading.Event(), threading.Event()

    def deadline(processor):
        reached.set()
        proceed.wait(10)
        return Outcome.DEADLINE

    vm = build(deadline, mask=UD)
    runner = threading.Thread(target=vm.run)
    runner.start()
    assert reached.wait(10)
    asker = threading.Thread(target=vm.set_exception_mask, args=(PF,))
    asker.start()
    while not vm.processor.commands:
        pass
    proceed.set()
    for thread in (runner, asker):
        thread.join(10)
        assert not thread.is_alive()
    assert vm.mask == UD
    vm.run()
    assert vm.mask == PF
