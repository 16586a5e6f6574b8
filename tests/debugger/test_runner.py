"""A guest runs in a thread of its own."""

import contextlib
import select

import pytest

from tests.interruptions import after_lines
from trapline.api import Machine
from trapline.debugger import runner as runner_module
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


@pytest.mark.parametrize("lines", range(8))
def test_a_signal_that_comes_while_a_result_is_taken_leaves_nobody_waiting(lines):
    def interrupt():
        raise KeyboardInterrupt

    with Runner() as runner:
        runner.start(lambda: 7)
        assert ready(runner)
        with contextlib.suppress(KeyboardInterrupt), after_lines(runner_module, lines, interrupt):
            runner.take()
        if runner.is_busy:
            assert ready(runner, 1)
            assert runner.take() == 7


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
