"""Random code from the command line, in process: each run ends with its summary and all its records."""

import pytest

from tools.fuzzing import survival
from tools.fuzzing.survival import results, run

pytestmark = pytest.mark.slow

PROGRAMS = 40


def test_each_run_has_its_summary_and_all_records():
    print(f"python -m tools.fuzzing.survival --seed 1 --programs {PROGRAMS}")
    found = list(results("1", range(PROGRAMS)))
    assert [number for number, _, _ in found] == list(range(PROGRAMS))
    assert [each for each in found if each[2] is not None] == []
    endings = {ending for _, ending, _ in found}
    assert {"failed", "halted", "shutdown"} <= endings


def test_a_run_without_its_records_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(survival, "generate", lambda seed: (32, b"\x0f\x0b"))
    monkeypatch.setattr(survival, "_TIMEOUT", "60")
    assert run("", tmp_path) == ("shutdown", None)
    monkeypatch.setattr(
        survival, "trapline", lambda command: print('{"ending": "shutdown", "findings": [], "recorded": 9}') or 3
    )
    assert run("", tmp_path)[1] == "5 records of 9"
    monkeypatch.setattr(survival, "trapline", lambda command: print("{") or 3)
    assert run("", tmp_path)[1].startswith("Expecting")


@pytest.mark.parametrize("value", [0, 1])
def test_a_debug_exit_is_an_ending(tmp_path, monkeypatch, value):
    monkeypatch.setattr(survival, "generate", lambda seed: (32, bytes((0xB0, value, 0xE6, 0xF4))))
    monkeypatch.setattr(survival, "_TIMEOUT", "60")
    assert run("", tmp_path) == ("debug_exit", None)


def test_a_process_that_dies_is_noticed(monkeypatch):
    monkeypatch.setattr(survival.sys, "executable", "/bin/false")
    assert list(results("0", range(2))) == [(n, "", "the process ended with status 1") for n in range(2)]
