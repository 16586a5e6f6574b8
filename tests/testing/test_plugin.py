"""The pytest plugin, on tests that are run inside this one's process."""

import json
import sys
import xml.etree.ElementTree as ET

import pytest

import trapline
from trapline.machine.processor import Outcome
from trapline.machine.scripted import ScriptedProcessor, vmexit
from trapline.session.settings import PROCESSORS
from trapline.testing import plugin

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """Load all that tests inside load: what they load themselves is forgotten after them, but numpy loads once only."""
    run = trapline.run("sample:pf", exceptions="all")
    run.expect("kernel:pf@*", count=0)
    with pytest.raises(trapline.GuestFailed):
        trapline.run("sample:no-idt", exceptions="all", fail_on=["pf"]).check()


@pytest.fixture
def run_tests(pytester, monkeypatch):
    """Return a function that runs tests, given as text, under this plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run_tests(text, *options):
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess("-p", plugin.__name__, *options, no_reraise_ctrlc=True)

    return run_tests


def test_the_options_name_the_processors_that_there_are():
    assert plugin.PROCESSORS == PROCESSORS


def test_a_guest_runs_and_the_test_passes(run_tests):
    done = run_tests(
        """
        def test_guest(trapline):
            run = trapline.run("sample:pf", exceptions="all", timeout=20)
            run.check()
            run.never("ud", "gp", "df")
            assert len(run.expect("pf", count=2, cpl=0)) == 2
            assert b"handled" in run.console
        """
    )
    done.assert_outcomes(passed=1)
    done.stdout.no_fnmatch_line("*- trapline -*")


@pytest.mark.parametrize("ci", ["", "1"])  # pytest's summary is not shortened where CI is set
def test_a_check_that_fails_shows_the_explanation_once(run_tests, monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    done = run_tests(
        """
        def test_guest(trapline):
            trapline.run("sample:no-idt", exceptions="all").check()
        """
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "E *GuestFailed: shutdown (triple fault): #UD at 0x*: ud2 *no IDT is loaded: IDTR has base 0 and limit 0.",
            "E *triple fault: the last exceptions, newest last",
            "E *#UD   cpl 0  *",
            "E *at the shutdown  cpl 0  *",
            "E *->0* 0f0b  * ud2",
            "E *why it shut down",
            "E *Cause: *no IDT is loaded*",
            "*- trapline -*",
            "guest sample:no-idt",
            "guest: shutdown (triple fault) after *",
            "FAILED *::test_guest - *",
        ]
    )
    assert done.stdout.str().count("why it shut down") == 1
    assert "in check" not in done.stdout.str()  # our own frames


def test_another_failure_shows_what_the_guests_did(run_tests):
    done = run_tests(
        """
        def test_guest(trapline):
            trapline.run("sample:ud", exceptions="all")
            run = trapline.run("sample:no-idt", exceptions="all")
            assert b"init done" in run.console
        """
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*where * = <Run: shutdown (triple fault), 5 recorded>.console",
            "*- trapline -*",
            "guest sample:ud",
            "guest: debug exit with 0x0 *",
            "guest sample:no-idt",
            "triple fault: the last exceptions, newest last",
            "why it shut down",
            "Cause: *no IDT is loaded*",
            "recorded: 1 #UD, 1 #DF, 3 #GP",
            "the last lines of its console",
        ]
    )


def test_a_test_without_a_guest_shows_nothing(run_tests):
    done = run_tests("def test_one(trapline):\n    assert 0\ndef test_two():\n    assert 0")
    done.assert_outcomes(failed=2)
    done.stdout.no_fnmatch_line("*- trapline -*")


def test_a_machine_is_shown_closed_or_open_and_closed_after_the_test(run_tests):
    done = run_tests(
        """
        from trapline import STOP, Vector

        machines = []

        def stopped(m):
            machines.append(m)
            m.on(Vector.UD)(lambda exc: STOP)
            assert m.run(timeout=20).exception.vector is Vector.UD

        def test_open(trapline):
            stopped(trapline.machine("sample:ud"))
            assert 0

        def test_closed(trapline):
            with trapline.machine("sample:ud") as m:
                stopped(m)
            assert 0

        def test_never_run(trapline):
            machines.append(trapline.machine("sample:ud"))
            assert 0

        def test_they_are_closed():
            for machine in machines:
                assert not machine.session.processor.pc.is_open
        """
    )
    done.assert_outcomes(failed=3, passed=1)
    assert done.stdout.str().count("- trapline -") == 2


@pytest.mark.parametrize("named", ["", ", processor='unicorn'"])
def test_the_option_names_the_processor_and_a_test_without_it_is_skipped(run_tests, monkeypatch, named):
    monkeypatch.setenv("PATH", "/nowhere")
    text = f"def test_guest(trapline):\n    trapline.run('sample:ud'{named})"
    done = run_tests(text, "--trapline-processor=qemu", "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["SKIPPED * qemu-system-x86_64 is not on PATH; install it *"])


@pytest.mark.parametrize("missing", ["qemu", "qemu.qmp"])
def test_a_machine_without_its_processor_is_skipped_too(run_tests, monkeypatch, missing):
    if missing == "qemu":
        monkeypatch.setenv("PATH", "/nowhere")
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    done = run_tests("def test_guest(trapline):\n    trapline.machine('sample:ud', processor='qemu')")
    done.assert_outcomes(skipped=1)


def test_a_processor_that_was_named_and_does_not_start_is_a_failure(run_tests):
    done = run_tests(
        """
        import pytest

        @pytest.mark.parametrize("program", ["/bin/false", "/nonexistent"])
        def test_guest(trapline, program):
            trapline.run("sample:ud", processor="qemu", qemu=program)
        """
    )
    done.assert_outcomes(failed=2)


def test_a_processor_of_ones_own_is_left_alone(pytester, run_tests):
    done = run_tests(
        """
        from trapline import ScriptedProcessor
        from trapline.machine.processor import Outcome

        def test_guest(trapline):
            run = trapline.run(processor=ScriptedProcessor([Outcome.RESET]))
            assert run.processor == "scripted"
        """,
        "--trapline-processor=unicorn",
    )
    done.assert_outcomes(passed=1)


def test_no_other_processor_is_an_option(run_tests):
    done = run_tests("", "--trapline-processor=bochs")
    assert done.ret == pytest.ExitCode.USAGE_ERROR


def test_traces_are_kept_and_named_after_their_tests(pytester, run_tests):
    done = run_tests(
        """
        import pytest

        @pytest.mark.parametrize("name", ["ud", "a/b", "a b"])
        def test_guest(trapline, name):
            trapline.run("sample:ud", exceptions="all")

        def test_two(trapline, tmp_path):
            trapline.run("sample:ud", exceptions="all")
            with trapline.machine("sample:pf", exceptions="all") as m:
                m.run()
            trapline.run("sample:pf", exceptions="all", output=tmp_path / "own.jsonl")
            assert (tmp_path / "own.jsonl").exists()
            assert 0
        """,
        "--trapline-keep=traces/of/now",
    )
    done.assert_outcomes(passed=3, failed=1)
    folder = pytester.path / "traces" / "of" / "now"
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 5
    prefix = "test_traces_are_kept_and_named_after_their_tests.py."
    assert {f"{prefix}test_guest-ud.jsonl", f"{prefix}test_two.jsonl", f"{prefix}test_two-2.jsonl"} < set(names)
    lines = (folder / f"{prefix}test_two-2.jsonl").read_text().splitlines()
    assert [line["vector"] for line in map(json.loads, lines) if "vector" in line] == [14, 14]
    done.stdout.fnmatch_lines([f"trace: {folder}/{prefix}test_two.jsonl", "trace: */own.jsonl"])


def test_properties_reach_junit(pytester, run_tests):
    run_tests(
        """
        def test_one(trapline):
            trapline.run("sample:ud", exceptions="all")

        def test_two(trapline):
            m = trapline.machine("sample:no-idt", exceptions="all")
            m.run()
        """,
        "--junit-xml=junit.xml",
        "--trapline-keep=traces",
    )
    found = {}
    for case in ET.parse(pytester.path / "junit.xml").iter("testcase"):
        found[case.get("name")] = {each.get("name"): each.get("value") for each in case.iter("property")}
    trace = found["test_one"].pop("trapline_trace")
    assert trace.endswith("test_one.jsonl")
    assert found["test_one"] == {"trapline_ending": "debug_exit", "trapline_recorded": "1"}
    assert found["test_two"]["trapline_ending"] == "shutdown"


def test_ctrl_c_ends_the_tests(run_tests, monkeypatch):
    def interrupted(processor):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        trapline, "_script", ScriptedProcessor([Outcome.RESET, vmexit(0x46), interrupted]), raising=False
    )
    done = run_tests(
        """
        import trapline as library

        def test_guest(trapline):
            trapline.run(processor=library._script, exceptions="all").check()
        """
    )
    assert done.ret == pytest.ExitCode.INTERRUPTED


def test_a_console_is_shown_as_text(run_tests):
    done = run_tests(
        r"""
        def test_guest(trapline):
            out = lambda byte: bytes((0xB0, byte, 0xE6, 0xE9))  # MOV AL, byte; OUT 0xE9, AL
            code = b"".join(map(out, b"\x1b[2J\n\xffend\n")) + b"\xf4"
            trapline.run(code, entry_mode=32, timeout=20)
            assert 0
        """
    )
    done.stdout.fnmatch_lines(["the last lines of its console", "  \N{REPLACEMENT CHARACTER}[[]2J", "  *end"])
    assert "\x1b" not in done.stdout.str()
