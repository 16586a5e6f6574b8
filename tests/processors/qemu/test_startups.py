"""What INITs and startup IPIs lead to, and what the hypervisor is told, with CPUs that note what they are asked for."""

import pytest

from trapline.arch.vmcb import Vmcb
from trapline.machine.processor import Outcome
from trapline.processors.qemu.apic import Command
from trapline.processors.qemu.outcomes import Outcomes
from trapline.processors.qemu.startups import Startups

INIT, STARTUP = Command(0x4500, [1], True), Command(0x4608, [1], False)


class Cpu:
    """A CPU that is stopped in the monitor; the second one waits for a startup IPI. It is its own `stops`."""

    def __init__(self, number):
        self.number, self.stops, self.vmcb = number, self, Vmcb()
        self.running = self.init_comes = False
        self.waits = self.asleep = number > 0
        self.starter, self.startup, self.held, self.starting, self.found = None, None, None, 0, None

    def take_trap(self):
        return False

    def is_still_wanted(self, outcome):
        return True

    def resume(self):
        self.held = None

    start = enter = resume

    def finish(self, command):
        return self.found

    def take_init(self):
        self.waits = self.asleep = True

    def release_starter(self):
        self.starter.starting -= 1
        self.starter = None


@pytest.fixture
def cpus():
    return [Cpu(number) for number in range(3)]


@pytest.fixture
def outcomes():
    return Outcomes()


@pytest.fixture
def send(cpus, outcomes):
    """Return a function that lets a CPU send a command."""
    startups = Startups(cpus, outcomes)
    return lambda command, sender=0: startups.send(cpus[sender], command)


def told(outcomes, cpus):
    """Return all that the hypervisor is told."""
    found = []
    while (one := outcomes.take(cpus)) is not None:
        found.append(one)
    return found


def test_the_sender_goes_on_when_the_other_has_begun(send, cpus, outcomes):
    send(STARTUP)
    first, second, _ = cpus
    assert (first.starting, first.held, second.starter) == (1, first.resume, first)
    assert told(outcomes, cpus) == [(1, Outcome.SIPI)]
    assert (second.held, second.vmcb.control.exit_info_1) == (second.start, 0x08)


def test_a_step_of_the_sender_is_told_after_it(send, cpus, outcomes):
    cpus[0].found = Outcome.VMEXIT
    send(STARTUP)
    assert cpus[0].held is None
    assert told(outcomes, cpus) == [(1, Outcome.SIPI), (0, Outcome.VMEXIT)]


@pytest.mark.parametrize("is_told", [False, True])
def test_an_init_takes_back_a_startup_ipi(send, cpus, outcomes, is_told):
    """The hypervisor may have been told of it, or not even of the INIT before: it is told of this one."""
    second = cpus[1]
    second.waits = second.asleep = False
    send(INIT)
    send(STARTUP)
    if is_told:
        told(outcomes, cpus)
    send(INIT, sender=2)
    assert (second.waits, second.held, cpus[0].starting) == (True, None, 0)
    assert told(outcomes, cpus) == [(1, Outcome.INIT)]
