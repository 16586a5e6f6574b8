import os

import pytest

from tests.interruptions import at_each_start
from trapline.cli.foreground import foreground


def test_a_program_that_ends():
    with foreground(["/bin/true"]) as program:
        assert os.read(program.ended, 1) == b""


def test_one_that_is_ended():
    with foreground(["/bin/sleep", "100"]) as program:
        program.end()
        assert os.read(program.ended, 1) == b""


def test_a_signal_while_it_starts_ends_it(monkeypatch):
    """It comes before anybody has the number of the process."""
    numbers = at_each_start(monkeypatch)
    with pytest.raises(KeyboardInterrupt), foreground(["/bin/sleep", "100"]):
        pytest.fail("it was begun")
    with pytest.raises(ProcessLookupError):
        os.kill(numbers[0], 0)
