import pytest

from trapline.api import run
from trapline.arch.vectors import Vector
from trapline.machine.processor import Outcome
from trapline.machine.scripted import ScriptedProcessor, vmexit
from trapline.report.result import Ending

UD, PF = vmexit(0x46), vmexit(0x4E, info_1=2, info_2=0x1234)


@pytest.fixture
def result():
    """Return a function that runs three exceptions under rules."""

    def result(**rules):
        return run(processor=ScriptedProcessor([Outcome.RESET, UD, PF, UD]), exceptions="all", **rules)

    return result


def test_a_rule_stops_the_guest_at_the_exception(result):
    found = result(fail_on=["gp", "kernel:pf"])
    assert (found.ending, found.exit_code) == (Ending.RULE, 5)
    assert [record.vector for record in found.exceptions] == [Vector.UD]  # the other is not delivered
    assert [(violation.rule, violation.message[:12]) for violation in found.violations] == [
        ("kernel:pf", "raised once:")
    ]
    assert found.crash.registers.rip == 0xFFF0
    assert found.explanation.origin.event.vector == Vector.PF


def test_a_guest_that_keeps_going_is_told_at_its_end(result):
    found = result(fail_on=["ud", "user:pf"], keep_going=True)
    assert (found.ending, found.exit_code) == (Ending.OFF, 5)
    ((rule, message),) = found.violations
    assert (rule, message.split(":")[0]) == ("ud", "raised 2 times, first")


@pytest.mark.parametrize(
    ("expected", "kept"), [(["pf", "ud=2"], True), (["ud=1"], False), (["gp"], False), (["gp=0"], True)]
)
def test_what_is_expected(result, expected, kept):
    found = result(expect=expected)
    assert (found.exit_code, found.violations == ()) == ((0, True) if kept else (5, False))


def test_a_rule_that_is_given_twice_counts_an_exception_once(result):
    found = result(fail_on=["ud", "ud"], expect=["ud=2"], keep_going=True)
    assert [rule for rule, _ in found.violations] == ["ud", "ud"]
    assert {message.split(":")[0] for _, message in found.violations} == {"raised 2 times, first"}
