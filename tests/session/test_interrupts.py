"""Ctrl-C while a guest runs, wherever it comes: nothing is left half done, and the guest can go on."""

import signal

import pytest

from tests.acceptance.several import raising
from tests.interruptions import after_lines
from tests.session.test_machine import PROCESSORS
from trapline import Machine, ScriptedProcessor, StopReason
from trapline.hypervisor import board_loop, delivery, loop, recording
from trapline.machine.processor import Outcome

TIMES = 5
LIMIT = 60


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Let Ctrl-C be a KeyboardInterrupt, even in a job in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def counters(image, processor, module, lines, cpus=1):
    """Run a guest to its end that is interrupted after some lines of a module; return what each CPU has counted.

    None: the module executed fewer lines.
    """
    came = []

    def interrupt():
        came.append(True)
        signal.raise_signal(signal.SIGINT)

    with Machine(image, processor=processor, exceptions="all", cpus=cpus) as machine:
        try:
            with after_lines(module, lines, interrupt):
                machine.run(LIMIT)
        except KeyboardInterrupt:
            assert machine.run(LIMIT).reason is StopReason.OFF
        else:
            assert not came
        counted = {}
        for exception in machine.exceptions:
            counted.setdefault(exception.vcpu, []).append(exception.registers.rcx)
        return counted if came else None


@pytest.mark.parametrize("module", [loop, delivery, recording])
def test_no_exception_is_handled_twice(module, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(raising(1, TIMES))
    lines = 0
    while (counted := counters(image, "unicorn", module, lines)) is not None:
        assert counted == {0: list(range(1, TIMES + 1))}, lines
        lines += 3
    assert lines > 50


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("module", [board_loop, delivery])
def test_none_of_several_cpus_is_handled_twice(processor, module, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(raising(2, TIMES))
    for lines in range(3, 24, 5):
        assert counters(image, processor, module, lines, cpus=2) == {n: list(range(1, TIMES + 1)) for n in range(2)}


def test_a_ctrl_c_as_the_guest_stops_by_itself_does_not_stop_the_next_run():
    def stops(processor):
        signal.raise_signal(signal.SIGINT)
        return Outcome.BREAKPOINT

    script = ScriptedProcessor([Outcome.RESET, stops, Outcome.OFF])
    with Machine(processor=script) as machine:
        with pytest.raises(KeyboardInterrupt):
            machine.run()
        assert machine.run().reason is StopReason.OFF
