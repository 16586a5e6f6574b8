"""Each option of each command with values that nobody should give: an exit code, one line, and no file is changed."""

import argparse
import contextlib
import signal

import pytest

from trapline.cli.parser import parser
from trapline.errors import UsageError
from trapline.hypervisor.parameters import ENVIRONMENT
from trapline.machine.processor import Outcome
from trapline.processors.qemu.command import read_user_options, takes_stdio
from trapline.processors.qemu.debug_exit import exit_ports
from trapline.processors.qemu.named_files import named_files
from trapline.session.clash import File, check_clashes, input_files
from trapline.session.settings import Settings

HUGE = "9" * 5000
VALUES = (
    *("", " ", "0", "-1", "+1", "-0", HUGE, f"-{HUGE}", "0x" + "f" * 5000, "0" * 5000, "0b1", "0o7", "1_000"),
    *("1.5", "1e400", "1e-400", "nan", "inf", "-inf", "٣", "１６", "²", "16k", "16KiB", "64\u212a", str(1 << 64)),
    *("\n", "a\nb", "\x1b[2J", "\x00", "\udcff", "é", "x" * 5000, "x" * 300, "a/" * 3000, "/", "..", "nowhere/new"),
    *("(" * 500, "not " * 500, "1+" * 5000 + "1", "aaa" + "@" * 50, "%s%n", "{}", "'", "@", "@0x", f"x@{HUGE}"),
    *("=", f"pf={HUGE}", "pf=٣", "," * 200, "!", "if", f"pf if rip == {HUGE}", "kernel:", ":pf", "pf@[", "pf@****"),
    *("disk.img", "kept", "./kept", "fd/disk.img", "kept@0", "sample:", "sample:nothing", "sample:\n"),
    *("-", "--", "/dev/null"),
)
FINE = {0, 2, 5}
SECONDS = 20
SHARE = 3
"""Each option gets a third of the values, neighbours another third: all options read them by the same few functions."""


def value_options():
    """Yield the command and the name of each option that takes a value, and of each argument without a name."""
    verbs = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for verb, command in verbs.choices.items():
        if verb in ("doctor", "dap", "mcp"):
            continue  # one finds out what is missing, the others serve until their input ends
        for action in command._actions:
            if verb in SAME and action.dest not in SAME[verb]:
                continue
            if action.nargs != 0 and not isinstance(action, argparse._HelpAction):
                yield verb, (action.option_strings or [None])[-1], action.dest


SAME = {
    "record": {"guest", "output"},
    "gdb": {"guest", "gdb_program", "gdb_options"},
    "report": {"files", "by", "limit", "html"},
    "show": {"files", "limit"},
    "query": {"files", "sql", "limit"},
    "diff": {"by", "html"},
}
"""Commands whose other options are read as those of run, stat or explain, and their own ones."""
BASES = {
    "run": (["disk.img", "--accel", "tcg"], ["code", "--entry-mode", "16", "--processor", "unicorn"]),
    "explain": (["trace"],),
    "report": (["trace"],),
    "stat": (["trace"],),
    "show": (["trace"],),
    "query": (["trace", "select seq from trace"],),
    "convert": (["trace", "converted"],),
    "diff": (["trace", "trace"],),
    "record": (["disk.img", "--accel", "tcg"],),
    "gdb": (["disk.img", "--gdb-program", "nowhere"],),
    "import": (["qemu-int", "log"],),
}
ARGUMENTS = {"guest": 0, "file": 0, "files": 0, "trace": 0, "output": 1, "format": 0, "log": 1, "sql": 1}
OF_UNICORN = {"--entry-mode", "--load-address", "--memory", "--initrd", "--append", "--symbols"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the commands name, in the directory where they run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    for name, content in {
        "disk.img": bytes(510) + b"\x55\xaa",
        "code": b"\xfa\xf4",  # cli; hlt
        "kept": b"0000000000101300 T main\n",
        "trace": b'{"seq":0,"vector":6,"name":"#UD"}\n',
        "log": b"check_exception old: 0xffffffff new 0x6\n",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "fd").symlink_to(tmp_path)
    return tmp_path


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def _limited():
    """End a command that hangs."""

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def tried(trapline_command, folder, before, words):
    """Run a command, check how it ends, and remove what it created."""
    signal.alarm(SECONDS)
    done = trapline_command(*words)
    signal.alarm(0)
    assert done.status in FINE, (words, done)
    if done.status == 2:
        assert done.err.startswith("trapline: "), (words, done)
        assert done.err.count("\n") == 1, (words, done)
        assert len(done.err) < 2000, words
        assert done.err.rstrip("\n").isprintable() or "\udcff" in "".join(words), (words, done)
        assert done.out == "", (words, done)
    after = content(folder)
    for name in after.keys() - before.keys():
        (folder / name).unlink()
    assert {name: after.get(name) for name in before} == before, words


@pytest.mark.slow
@pytest.mark.usefixtures("_limited")
@pytest.mark.parametrize(("verb", "option", "dest"), list(value_options()), ids=lambda value: str(value).strip("-"))
def test_any_value(trapline_command, folder, play, verb, option, dest):
    before = content(folder)
    for number, base in enumerate(BASES[verb]):
        if number and option not in OF_UNICORN:
            continue
        for value in VALUES[len(str(option)) % SHARE :: SHARE]:
            play(Outcome.OFF)
            words = list(base)
            if option is not None:
                words.append(f"{option}={value}")  # the last one counts
            elif value.startswith("-"):
                continue  # an option
            else:
                words[ARGUMENTS[dest]] = value
            tried(trapline_command, folder, before, [verb, *words])


@pytest.mark.slow
@pytest.mark.usefixtures("_limited")
def test_any_mask_in_the_environment(trapline_command, folder, play, monkeypatch):
    before = content(folder)
    for value in VALUES:
        if "\0" not in value:
            play(Outcome.OFF)
            monkeypatch.setenv(ENVIRONMENT, value)
            tried(trapline_command, folder, before, ["run", "disk.img", "--accel", "tcg"])


QEMU_OPTIONS = ("-smp", "-m", "-machine", "-M", "-cpu", "-bios", "-drive", "-device", "-hda", "-accel", "-blockdev")
QEMU_VALUES = (
    "",
    "cpus=",
    "q35,smm=",
    "file=",
    "isa-debug-exit,iobase=",
    '{"driver":"isa-debug-exit","iobase":',
    "json:{",
)


@pytest.mark.parametrize("option", QEMU_OPTIONS)
def test_any_value_of_an_option_of_qemu(option):
    for value in (start + value for start in QEMU_VALUES for value in VALUES):
        assert all(isinstance(name, str) for name in named_files([option, value]))
        assert all(ports.start >= 0 for ports in exit_ports([option, value]))
        takes_stdio([option, value])
        with contextlib.suppress(UsageError):
            read_user_options([option, value])


@pytest.mark.parametrize("option", ["-bios", "-drive"])
def test_any_file_of_an_option_of_qemu(option, folder):
    for value in VALUES:
        with contextlib.suppress(UsageError):
            check_clashes(input_files(Settings(qemu_options=[option, value])), [File("-o", folder / "disk.img")])
