"""A project of somebody else's: `pip install trapline pytest`, a kernel built by gcc, and its tests."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.programs.kernel import build_kernel

ROOT = Path(__file__).parents[2]
UNICORN = {"WATCHPOINT": 0, "RF": 0}
"""What Unicorn cannot do is left out of the kernel."""

TESTS = """\
import pytest
import trapline as library


@pytest.fixture
def boot(trapline):
    return lambda name: trapline.run(f"build/{name}/kernel", symbols=[f"build/{name}/kernel.elf"], timeout=300)


def test_the_kernel_boots(boot):
    run = boot("good")
    run.check()
    assert run.ending is library.Ending.DEBUG_EXIT
    assert b"kernel: up" in run.console


def test_faults_come_where_they_should(boot):
    run = boot("good")
    run.never("xm", "kernel:mf", "kernel:pf@user_*")
    run.expect("df", cpl=0, at="overflow", count=1)
    assert all(exc.cpl == 3 for exc in run.expect("pf", at="user_*"))


def test_the_broken_kernel_boots(boot):
    boot("broken").check()
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the Python of a fresh environment with trapline, from a wheel, and pytest."""
    folder = tmp_path_factory.mktemp("installed")
    built = pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    if built.returncode and (reached := pip("download", "--no-deps", "--dest", folder / "tried", "pytest")).returncode:
        pytest.skip(f"no package index is reachable: {reached.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("trapline-*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    installed = pip("--python", python, "install", "--no-compile", wheel, "pytest")
    assert installed.returncode == 0, installed.stderr
    return python


@pytest.fixture
def project(tmp_path):
    """Return a folder with two kernels and three tests."""
    if missing := build_kernel.missing_tools():
        pytest.skip(f"{missing[0]} is not installed")
    build_kernel.build(tmp_path / "build" / "good", **UNICORN)
    build_kernel.build(tmp_path / "build" / "broken", CRASH=1, **UNICORN)
    (tmp_path / "test_kernel.py").write_text(TESTS)
    return tmp_path


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)


def environment():
    """Return this process's environment without what leads Python or pytest to this checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "COV"))}


@pytest.mark.slow
def test_the_test_that_fails_shows_the_explanation(python, project):
    done = subprocess.run(
        [python, "-m", "pytest", "--trapline-keep=traces", "--junit-xml=junit.xml"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed" in lines[-1]
    for part in (
        "GuestFailed: shutdown (triple fault): #PF(0x2) at crash+",
        "code, in crash+",
        "why it shut down",
        "since no IDT is loaded: IDTR has base 0 and limit 0.",
        "- trapline -",
        f"trace: {project}/traces/test_kernel.py.test_the_broken_kernel_boots.jsonl",
        "kernel: up",
    ):
        assert any(part in line for line in lines), part
    assert len(list((project / "traces").iterdir())) == 3
    assert '<property name="trapline_ending" value="shutdown" />' in (project / "junit.xml").read_text()
