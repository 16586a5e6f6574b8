import os
import sys

import pytest

from benchmarks import measure
from benchmarks.figures import YARDSTICKS
from benchmarks.measure import Cost, apart, in_turn, run, timed


@pytest.fixture(autouse=True)
def few_turns(monkeypatch):
    monkeypatch.setattr(measure, "YARDSTICK_TIMES", 10)


def test_each_round_begins_with_another_candidate():
    order = []

    def candidate(name):
        order.append(name)
        return Cost(len(order), 0.5)

    found = in_turn({name: lambda name=name: candidate(name) for name in "ab"}, 3)
    assert "".join(order) == "abbaab"
    assert found["a"].seconds == (1, 4, 5)
    assert found["b"].used == (0.5, 0.5, 0.5)
    assert found["a"].memory == ()
    assert found.keys() == {"a", "b", *YARDSTICKS}
    assert all(len(found[name].seconds) == 3 and min(found[name].seconds) >= 0 for name in YARDSTICKS)


def test_memory_is_kept_where_it_was_measured():
    assert in_turn({"a": lambda: Cost(1, 1, 4096)}, 2)["a"].memory == (4096, 4096)


def test_processor_time_is_that_of_all_of_a_piece_of_work():
    def work():
        sum(range(10**6))
        return 0.0

    cost = timed(work)
    assert cost.seconds == 0
    assert cost.used > 0


@pytest.mark.slow
def test_each_piece_of_work_has_a_process_of_its_own():
    assert len({os.getpid(), apart(os.getpid), apart(os.getpid)}) == 3


def test_commands_run_one_after_the_other(tmp_path):
    file = tmp_path / "file"
    write = [sys.executable, "-I", "-S", "-c", f"open({str(file)!r}, 'a').write('x')"]
    cost = run(write, write)
    assert file.read_text() == "xx"
    assert cost.seconds > 0
    assert cost.used > 0
