import pytest

from trapline.api import run
from trapline.errors import ProcessorLost
from trapline.machine.processor import Outcome
from trapline.machine.scripted import ScriptedProcessor, vmexit
from trapline.report.text import ending_text, report

UD, SHUTDOWN = vmexit(0x46), vmexit(0x7F)


def overdue(processor):
    return Outcome.DEADLINE


@pytest.fixture
def lines():
    """Return a function that plays a script and reports the run."""

    def lines(*steps, **options):
        return report(run(processor=ScriptedProcessor([Outcome.RESET, *steps]), exceptions="all", **options))

    return lines


def test_exceptions_that_are_missing_are_missed_only_at_a_shutdown(lines):
    title, hint, *_ = lines(SHUTDOWN)
    assert title == "triple fault: the last exceptions, newest last"
    assert hint == "  none was recorded: run it again with --exceptions all"
    assert lines(overdue)[0].startswith("where it was  cpl 0  f000:")


def test_a_rule_says_where_it_stopped_the_guest(lines):
    text = lines(UD, fail_on=["ud"])
    assert text[0].startswith("where the rule stopped it  cpl 0  f000:")
    assert "why it was raised" in text
    assert "rule ud: raised once: #UD at f000:fff0" in text
    assert not [line for line in text if line.startswith("recorded")]


def test_a_stop_says_where_and_why_it_stopped_the_guest(lines):
    text = lines(UD, stop=["gp", "ud if cpl == 0"])
    assert text[0].startswith("where it stopped  cpl 0  f000:")
    assert "why it was raised" in text
    assert text[-2].startswith("guest: stopped at an exception after ")
    assert text[-1] == "stop ud if cpl == 0: #UD at f000:fff0"


def test_the_last_exceptions_come_before_the_ending(lines):
    text = lines(*[UD] * 20, overdue)
    assert text[0] == "the last exceptions, newest last"
    assert text[1].startswith("  #UD")
    assert text[1].endswith("  x20")
    assert text[2].startswith("where it was")
    assert text[-2].startswith("guest: timeout after ")
    assert text[-1] == "recorded: 20 #UD"


def test_a_failure_shows_the_vmcb_or_the_error(lines):
    assert any("exit: " in line and "0x8e" in line for line in lines(vmexit(0x8E)))
    assert lines(ProcessorLost("gone"))[1:] == ["gone"]


def test_a_debug_exit_has_its_value():
    processor = ScriptedProcessor([Outcome.RESET])
    processor.exit_status = 0x21
    assert ending_text(run(processor=processor)) == "debug exit with 0x10"
