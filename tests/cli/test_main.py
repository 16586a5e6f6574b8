import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trapline import __version__
from trapline.cli import main as main_module
from trapline.cli.parser import VERBS, parser

EXIT_CODES = {0, 1, 2, 3, 4, 5, 124, 129, 130, 143}


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"]])
def test_the_help_names_each_exit_code(trapline_command, words):
    done = trapline_command(*words)
    assert done.status == 0
    assert {int(code) for code in re.findall(r"^  (\d+) ", done.out, re.MULTILINE)} == EXIT_CODES


def test_what_is_loaded_is_not_searched_for_garbage():
    code = "import gc; from trapline.cli.main import main; main(['run', 'sample:ring3', '--processor', 'unicorn']); "
    code += "print(gc.get_stats()[0]['collections'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout.split()[-1]) < 50  # with Python's own threshold some hundred


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_the_help_of_a_verb(trapline_command, capfd, verb):
    """The command adds the options of no other verb."""
    status, told, _ = trapline_command(verb, "--help")
    with pytest.raises(SystemExit):
        parser().parse_args([verb, "--help"])
    assert (status, told) == (0, capfd.readouterr().out)
    assert told.startswith(f"usage: trapline {verb} ")


def test_the_help_explains_each_option(trapline_command):
    text = trapline_command("run", "--help").out
    for option in (
        "--exceptions SET",
        "--memory SIZE",
        "--accel",
        "--timeout SECONDS",
        "--output FILE",
        "--where CONDITION",
        "--stop STOP",
    ):
        assert option in text
    assert "[-- QEMU OPTIONS]" in text


def test_the_version(trapline_command):
    assert trapline_command("--version") == (0, f"trapline {__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["run", "--mem", "1M"], "unrecognized arguments: --mem; see trapline run --help"),
        (["run", "-e"], "expected one argument"),
        (["run", "--accel", "xen"], "invalid choice: 'xen'"),
        (["run", "--timeout", "soon"], "--timeout soon: not a number of seconds"),
        (["vectors", "guest.img"], "unrecognized arguments: guest.img; see trapline vectors --help"),
        (["vectors", "--", "-m", "1G"], "only run, record and gdb take QEMU options after --"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(trapline_command, words, complaint):
    done = trapline_command(*words)
    assert done.status == 2
    assert done.out == ""
    assert complaint in done.err
    assert done.err.startswith("trapline: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("step", ["_parse", "_command"])
def test_an_interrupted_command_says_nothing(trapline_command, monkeypatch, step):
    def interrupted(*_, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, step, interrupted)
    assert trapline_command("vectors") == (130, "", "")


@pytest.mark.skipif(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, reason="the tests ignore SIGTERM")
@pytest.mark.parametrize("words", [["run", "guest"], ["record", "guest"], ["gdb", "guest"], ["dap"]])
def test_a_signal_as_libraries_are_loaded_ends_the_command(trapline_command, monkeypatch, words):
    monkeypatch.setattr(main_module, "_of_guest", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert trapline_command(*words) == (143, "", "")


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "trapline", "--version"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == f"trapline {__version__}\n"


@pytest.mark.parametrize("words", [["vectors"], ["vectors", "--json"]])
def test_a_reader_that_has_enough_is_no_error_to_talk_about(in_a_process, words):
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    with reader.stdin as pipe:
        done = in_a_process(*words, stdout=pipe)
    assert (done.status, done.err) == (1, "")


@pytest.mark.parametrize("words", [["vectors"], ["vectors", "--json"]])
def test_a_full_disk_behind_stdout_is_told_in_a_line(in_a_process, words):
    with Path("/dev/full").open("w") as full:
        done = in_a_process(*words, stdout=full)
    assert done.status == 1
    assert done.err == "trapline: stdout: No space left on device\n"


def test_without_a_stdout_the_data_goes_nowhere(in_a_process):
    close_it = "import os; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'trapline', 'vectors'])"
    assert in_a_process(code=close_it) == (0, "", "")


def test_no_memory_is_one_line(trapline_command, monkeypatch, tmp_path):
    def full(path, slide=0):
        raise MemoryError

    monkeypatch.setattr("trapline.session.symbols.load", full)
    done = trapline_command("explain", tmp_path, "--symbols", "System.map@0")
    assert (done.status, done.out) == (1, "")
    assert done.err == "trapline: there is not enough memory for this command\n"
