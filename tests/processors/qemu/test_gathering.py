import pytest

from trapline.processors.qemu.gathering import Gathering


class Cpu:
    """A CPU that was made to leave; it is its own `stops`."""

    def __init__(self):
        self.stops, self.forced, self.resumed = self, True, 0
        self.held = self.resume

    def resume(self):
        self.resumed += 1


@pytest.fixture
def cpus():
    return [Cpu() for _ in range(3)]


@pytest.fixture
def gathering(cpus):
    return Gathering(cpus)


def come_back(gathering, *cpus):
    for cpu in cpus:
        cpu.forced = False
        gathering.add(cpu)
        gathering.settle(standing=False)


def test_they_go_on_together(gathering, cpus):
    come_back(gathering, *cpus[:2])
    assert [cpu.resumed for cpu in cpus] == [0, 0, 0]
    come_back(gathering, cpus[2])
    assert [cpu.resumed for cpu in cpus] == [1, 1, 1]
    gathering.settle(standing=False)
    assert [cpu.resumed for cpu in cpus] == [1, 1, 1]


def test_all_stand_still_if_one_has_something_to_tell(gathering, cpus):
    cpus[1].held = None
    come_back(gathering, *cpus)
    assert [cpu.resumed for cpu in cpus] == [0, 0, 0]


def test_one_that_is_reset_on_its_way_is_not_waited_for(gathering, cpus):
    come_back(gathering, *cpus[:2])
    cpus[2].forced = False
    gathering.settle(standing=False)
    assert [cpu.resumed for cpu in cpus] == [1, 1, 0]


def test_they_may_be_to_stand_still_anyway(gathering, cpus):
    for cpu in cpus:
        cpu.forced = False
        gathering.add(cpu)
    gathering.settle(standing=True)
    gathering.settle(standing=False)
    assert [cpu.resumed for cpu in cpus] == [0, 0, 0]


def test_those_that_have_gone_on_are_forgotten(gathering, cpus):
    come_back(gathering, cpus[0])
    gathering.clear()
    cpus[0].held = None  # it runs
    come_back(gathering, *cpus[1:])
    assert [cpu.resumed for cpu in cpus] == [0, 1, 1]
