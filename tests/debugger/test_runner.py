"""A guest runs in a thread of its own."""

import select

import pytest

from trapline.api import Machine
from trapline.debugger.runner import Runner
from trapline.debugger.target import Target
from trapline.hypervisor.stop import StopReason


def ready(runner, seconds=60):
    """Whether the work is done within so many seconds."""
    return bool(select.select([runner], [], [], seconds)[0])


def test_a_guest_runs_until_it_is_interrupted():
    with Machine(bytes.fromhex("ebfe"), entry_mode=16) as machine, Runner() as runner:
        target = Target(machine)
        for _ in range(2):
            runner.start(target.resume)
            assert not ready(runner, 0.01)
            assert runner.is_busy
            target.interrupt()
            assert ready(runner)
            assert runner.take().reason is StopReason.INTERRUPTED
            assert not runner.is_busy


def test_what_the_work_raises_is_raised():
    with Runner() as runner:
        runner.start(lambda: 1 // 0)
        assert ready(runner)
        with pytest.raises(ZeroDivisionError):
            runner.take()
        runner.start(lambda: 7)
        assert runner.take() == 7
        assert not ready(runner, 0)
    runner.close()
