import pytest

from trapline.machine.processor import Outcome
from trapline.processors.qemu.outcomes import Outcomes


class Stops:
    """Whether the CPU has accessed a watchpoint by an instruction that traps."""

    trapped = False

    def take_trap(self):
        return self.trapped


class Cpu:
    """A CPU that notes what lets it go on."""

    def __init__(self, number):
        self.number, self.held, self.resumed, self.entered = number, None, 0, 0
        self.running, self.stops = False, Stops()
        self.unwanted = set()

    def is_still_wanted(self, outcome):
        return outcome not in self.unwanted

    def resume(self):
        self.resumed += 1

    def enter(self):
        self.entered += 1

    start = resume


@pytest.fixture
def cpus():
    return Cpu(0), Cpu(1)


@pytest.fixture
def outcomes():
    return Outcomes()


def test_the_oldest_of_those_that_execute(outcomes, cpus):
    first, second = cpus
    outcomes.add(second, Outcome.BREAKPOINT)
    outcomes.add(first, Outcome.VMEXIT)
    assert outcomes.take((first,)) == (0, Outcome.VMEXIT)
    assert outcomes.take((first,)) is None
    assert outcomes.take(cpus) == (1, Outcome.BREAKPOINT)
    assert (first.held, second.held) == (first.enter, second.enter)


@pytest.mark.parametrize("outcome", [Outcome.RESET, Outcome.WOKEN, Outcome.OFF])
def test_what_the_machine_does_is_for_all(outcomes, cpus, outcome):
    outcomes.add(cpus[0], outcome)
    assert outcomes.take(cpus[1:]) == (0, outcome)


def test_what_lets_it_go_on(outcomes, cpus):
    first = cpus[0]
    for outcome, held in ((Outcome.SIPI, first.start), (Outcome.INIT, None), (Outcome.OFF, None)):
        first.held = None
        outcomes.add(first, outcome)
        assert outcomes.take(cpus) == (0, outcome)
        assert first.held == held


@pytest.mark.parametrize(("outcome", "entered"), [(Outcome.BREAKPOINT, 1), (Outcome.VMEXIT, 0)])
def test_what_is_not_true_any_more_lets_it_go_on(outcomes, cpus, outcome, entered):
    """After an exit as the quirks have it, else as the hypervisor has it since."""
    first, second = cpus
    first.unwanted = {outcome}
    outcomes.add(first, outcome)
    outcomes.add(second, Outcome.BREAKPOINT)
    assert outcomes.take(cpus) == (1, Outcome.BREAKPOINT)
    assert (first.entered, first.resumed, first.held) == (entered, 1 - entered, None)


@pytest.mark.parametrize("found", [None, Outcome.VMEXIT])
@pytest.mark.parametrize("trapped", [True, False])
def test_an_exit_means_nothing_or_something_or_two_things(outcomes, cpus, found, trapped):
    first = cpus[0]
    first.stops.trapped = trapped
    outcomes.keep(first, found)
    told = [Outcome.WATCHPOINT] * trapped + [found] * (found is not None)
    assert list(outcomes) == [(first, one) for one in told]
    assert first.held == (None if told else first.resume)


def test_a_cpu_that_goes_on_by_itself_is_left_to_it(outcomes, cpus):
    for cpu, running, held in ((cpus[0], True, None), (cpus[1], False, cpus[1].enter)):
        cpu.running, cpu.held = running, held
        outcomes.keep(cpu, None)
        assert cpu.held == held


@pytest.mark.parametrize("wanted", [True, False])
def test_an_access_and_the_exit_of_the_same_instruction(outcomes, cpus, wanted):
    """The CPU goes on after the second of them alone."""
    first = cpus[0]
    first.unwanted = set() if wanted else {Outcome.WATCHPOINT}
    outcomes.add(first, Outcome.WATCHPOINT)
    outcomes.add(first, Outcome.VMEXIT)
    if wanted:
        assert outcomes.take(cpus) == (0, Outcome.WATCHPOINT)
        assert first.held is None
    assert outcomes.take(cpus) == (0, Outcome.VMEXIT)
    assert (first.held, first.resumed) == (first.enter, 0)


def test_what_a_reset_makes_void(outcomes, cpus):
    for cpu in cpus:
        outcomes.add(cpu, Outcome.VMEXIT)
    outcomes.drop(cpus[0])
    assert list(outcomes) == [(cpus[1], Outcome.VMEXIT)]
    outcomes.clear()
    assert outcomes.take(cpus) is None
