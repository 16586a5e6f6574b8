import os
import subprocess
import sys
from typing import NamedTuple

import pytest

import trapline.session.opening
from trapline.cli.main import main
from trapline.hypervisor.parameters import ENVIRONMENT
from trapline.machine.processor import Outcome
from trapline.machine.scripted import ScriptedProcessor


class Done(NamedTuple):
    """A command that is over."""

    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch):
    for name in (ENVIRONMENT, "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trapline_command(capfd):
    """Return a function that runs a command in this process."""

    def run(*words):
        try:
            status = main([str(word) for word in words])
        except SystemExit as error:  # argparse's way to end
            status = error.code
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture
def in_a_process():
    """Return a function that runs Python code, or trapline, in a process of its own."""

    def run(*words, code="from trapline.cli.main import main\nsys.exit(main())", **options):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}", *map(str, words)],
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
            text=True,
            timeout=20,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def disk(tmp_path):
    """A boot sector, the smallest guest."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(510) + b"\x55\xaa")
    return path


@pytest.fixture
def kernel(tmp_path):
    """A file that is recognised as a multiboot kernel."""
    path = tmp_path / "kernel.bin"
    path.write_bytes(b"\x02\xb0\xad\x1b\x00\x00\x01\x00\xfe\x4f\x51\xe4" + bytes(52))
    return path


class Opened:
    """Stands in for QEMU: plays a script, and keeps what it was opened with."""

    def __init__(self, steps, exit_status):
        self.steps = steps
        self.exit_status = exit_status
        self.settings = {}
        self.processor = None

    def __call__(self, **settings):
        self.settings = settings
        self.processor = ScriptedProcessor(self.steps)
        self.processor.exit_status = self.exit_status
        self.processor.has_uefi, self.processor.board = False, None
        self.processor.let_rest = lambda: None
        return self.processor


@pytest.fixture
def play(monkeypatch):
    """Return a function that lets the next run play a script in place of QEMU."""

    def play(*steps, exit_status=None):
        opened = Opened([Outcome.RESET, *steps], exit_status)
        monkeypatch.setattr(trapline.session.opening, "open_qemu", opened)
        return opened

    return play


@pytest.fixture
def program(tmp_path):
    """Return a function that writes an executable shell script."""

    def program(text, name="qemu-system-x86_64"):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return program


@pytest.fixture
def without_programs(monkeypatch, tmp_path):
    """Let PATH lead nowhere."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", os.fspath(empty))
