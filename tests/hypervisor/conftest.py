from typing import NamedTuple

import pytest

from trapline.arch.registers import CR0
from trapline.hypervisor.exception import Verdict
from trapline.hypervisor.stop import Stop
from trapline.hypervisor.vm import Vm
from trapline.machine.processor import Outcome
from trapline.machine.scripted import MANUAL, ScriptedProcessor


class Played(NamedTuple):
    """A run that is over."""

    processor: ScriptedProcessor
    vm: Vm
    stop: Stop
    deliveries: list

    @property
    def entry(self):
        """The last entry: what the guest went on with."""
        return self.processor.entries[-1]


class Watch:
    """An observer that notes what it saw and answers as told."""

    def __init__(self, vectors=0xFFFF_FFFF, verdicts=(), act=None):
        self.vectors = vectors
        self.seen = []
        self._verdicts = iter(verdicts)
        self._act = act

    def exception(self, vcpu, exit):
        self.seen.append(exit)
        if self._act:
            self._act(vcpu, exit)
        return next(self._verdicts, Verdict.FORWARD)


def prepared(step, fields):
    """Let a step begin with the given fields of the VMCB's two areas and the registers."""

    def perform(processor):
        for name, value in fields.items():
            areas = (processor.vmcb.save, processor.vmcb.control, processor.gprs)
            owner = next(area for area in areas if hasattr(area, name))
            setattr(owner, name, value)
        if isinstance(step, Exception):
            raise step
        return step if isinstance(step, Outcome) else step(processor)

    return perform


@pytest.fixture
def watch():
    return Watch


@pytest.fixture
def build():
    """Return a function that makes a VM: its guest is in protected mode when the first step begins."""

    def build(
        *steps,
        mask=0,
        observers=(),
        recorders=(),
        capabilities=None,
        reboots=False,
        tolerated=lambda vcpu: None,
        **fields,
    ):
        first, *later = steps or (Outcome.OFF,)
        first = prepared(first, {"cr0": CR0.PE, **fields})
        processor = ScriptedProcessor([Outcome.RESET, first, *later], MANUAL._replace(**capabilities or {}))
        vm = Vm(processor, mask=mask, reboots=reboots, recorders=recorders, tolerated=tolerated)
        for observer in observers:
            vm.observers.add(observer)
        return vm

    return build


@pytest.fixture
def play(build):
    """Return a function that runs the steps and returns what came of it."""

    def play(*steps, **options):
        deliveries = []
        recorder = lambda vcpu, exit, injected: deliveries.append((exit, injected))  # noqa: E731  # it has no other name
        vm = build(*steps, recorders=(recorder,), **options)
        return Played(vm.processor, vm, vm.run(), deliveries)

    return play
