"""The guest's console, and sinks that fail."""

import pytest

from trapline.errors import TraplineError
from trapline.session.console import Console


def test_a_sink_that_fails_apart_stops_the_guest_and_is_told_once():
    said, stopped = [], []

    def sink(data):
        said.append(data)
        raise TraplineError("no room")

    console = Console(sink)
    console.interrupt = lambda: stopped.append(True)
    console.check()
    console.take_apart(b"one")
    console.take_apart(b"two")
    assert (said, stopped, console.output) == ([b"one"], [True], b"onetwo")
    with pytest.raises(TraplineError, match="no room"):
        console.check()
    console.check()


def test_a_pipe_without_a_reader_stops_nothing():
    def sink(data):
        raise BrokenPipeError

    console = Console(sink)
    console.interrupt = lambda: pytest.fail("it stopped the guest")
    console.take_apart(b"one")
    console.check()
    assert console.output == b"one"


def test_a_sink_that_is_opened_late_gets_all():
    said = bytearray()
    console = Console()
    console.take(b"one")
    console.open_sink(said.extend)
    console.take(b"two")
    assert said == b"onetwo"
