import logging

import pytest

from trapline.arch.events import Event, EventType
from trapline.arch.vectors import Vector
from trapline.errors import UsageError
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.stop import StopReason
from trapline.machine.processor import Outcome
from trapline.machine.scripted import vmexit

UD, GP = Vector.UD, Vector.GP
BOTH = 1 << UD | 1 << GP
UD_EXIT, GP_EXIT = vmexit(0x46), vmexit(0x4D, info_1=8)
UD_EVENT, GP_EVENT = Event(UD, EventType.EXCEPTION), Event(GP, EventType.EXCEPTION, 8)
FORWARD, DISCARD, STOP = Verdict.FORWARD, Verdict.DISCARD, Verdict.STOP


def test_an_observer_sees_its_vectors_before_the_guest_does(play, watch):
    pending = []
    observer = watch(1 << UD, act=lambda vcpu, exit: pending.append(vcpu.processor.vmcb.control.event_inj))
    played = play(UD_EXIT, GP_EXIT, mask=BOTH, observers=[observer])
    assert [exit.event for exit in observer.seen] == [UD_EVENT]
    assert pending == [0]
    assert [entry.event for entry in played.processor.entries[2:]] == [UD_EVENT, GP_EVENT]


def test_discard_hides_the_exception_from_the_guest(play, watch):
    played = play(UD_EXIT, mask=BOTH, observers=[watch(verdicts=[DISCARD])])
    assert played.entry.event is None
    assert [injected for _, injected in played.deliveries] == [None]


def test_stop_leaves_the_loop_and_running_on_delivers(play, watch):
    observer = watch(verdicts=[STOP])
    played = play(GP_EXIT, mask=BOTH, observers=[observer])
    assert (played.stop.reason, played.stop.detail) == (StopReason.EXCEPTION, "#GP(0x8)")
    assert played.stop.exit == played.vm.vcpu.undelivered.exit == observer.seen[0]
    assert played.processor.vmcb.control.event_inj == 0
    assert played.vm.run().reason is StopReason.OFF
    assert played.entry.event == GP_EVENT
    assert len(observer.seen) == 1
    assert [injected for _, injected in played.deliveries] == [GP_EVENT]


def test_running_on_may_end_in_a_shutdown(play, watch):
    double_fault = Event(Vector.DF, EventType.EXCEPTION, 0)
    played = play(vmexit(0x46, vectoring=double_fault), mask=BOTH, observers=[watch(verdicts=[STOP])])
    assert played.stop.reason is StopReason.EXCEPTION
    assert played.vm.run().reason is StopReason.SHUTDOWN


def test_the_first_verdict_that_is_not_forward_counts(play, watch):
    first, second, third = watch(), watch(verdicts=[DISCARD]), watch(verdicts=[STOP])
    played = play(UD_EXIT, mask=BOTH, observers=[first, second, third])
    assert played.stop.reason is StopReason.OFF
    assert [len(observer.seen) for observer in (first, second, third)] == [1, 1, 0]


def test_an_observer_that_returns_nothing_forwards(play, watch):
    silent, second = watch(verdicts=[None]), watch(verdicts=[None])
    played = play(UD_EXIT, mask=BOTH, observers=[silent, second])
    assert played.entry.event == UD_EVENT
    assert [injected for _, injected in played.deliveries] == [UD_EVENT]
    assert [len(observer.seen) for observer in (silent, second)] == [1, 1]
    assert played.vm.observers.failures == []


@pytest.mark.parametrize("answer", [False, 0, "discard", UD_EVENT])
def test_what_is_not_a_decision_is_told_and_forwards(play, watch, caplog, answer):
    wrong = watch(verdicts=[answer])
    played = play(UD_EXIT, mask=BOTH, observers=[wrong])
    assert played.entry.event == UD_EVENT
    ((failed, error),) = played.vm.observers.failures
    assert failed is wrong
    assert isinstance(error, UsageError)
    assert str(error).startswith(f"{answer!r} is not FORWARD")


def test_observed_vectors_are_not_left_to_the_processor(play, watch):
    assert play(mask=BOTH).entry.forwarded == BOTH
    assert play(mask=BOTH, observers=[watch(1 << UD)]).entry.forwarded == 1 << GP


def test_observers_come_and_go_between_two_runs(build, watch):
    observer = watch(1 << UD)
    vm = build(UD_EXIT, Outcome.DEADLINE, UD_EXIT, mask=BOTH)
    vm.observers.add(observer)
    with pytest.raises(ValueError, match="not in list"):
        vm.observers.remove(watch())
    assert vm.run().reason is StopReason.TIMEOUT
    assert vm.processor.entries[-1].forwarded == 1 << GP
    vm.observers.remove(observer)
    assert vm.run().reason is StopReason.OFF
    assert vm.processor.entries[-1].forwarded == BOTH
    assert len(observer.seen) == 1


def test_an_observer_may_take_itself_away(build, watch):
    observer = watch(1 << UD, act=lambda vcpu, exit: vm.observers.remove(observer))
    vm = build(UD_EXIT, UD_EXIT, mask=BOTH, observers=[observer])
    vm.run()
    assert len(observer.seen) == 1
    assert vm.processor.entries[-1].forwarded == BOTH


@pytest.mark.parametrize("leaves", [False, True])
def test_one_that_raises_is_removed_and_reported(build, watch, caplog, leaves):
    def fail(vcpu, exit):
        if leaves:
            vm.observers.remove(broken)
        raise RuntimeError("no idea")

    broken, sound = watch(act=fail), watch(1 << UD)
    vm = build(UD_EXIT, UD_EXIT, mask=BOTH, observers=[broken, sound])
    with caplog.at_level(logging.ERROR):
        assert vm.run().reason is StopReason.OFF
    assert (len(broken.seen), len(sound.seen)) == (1, 2)
    assert [entry.event for entry in vm.processor.entries[2:]] == [UD_EVENT, UD_EVENT]
    assert [(observer, str(error)) for observer, error in vm.observers.failures] == [(broken, "no idea")]
    assert "failed and was removed" in caplog.text
    assert vm.processor.entries[-1].forwarded == 1 << GP
