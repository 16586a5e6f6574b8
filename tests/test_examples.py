"""The examples run, print what is stored beside them, stay short, and are typed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if not path.name.startswith("test_"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_prints_what_is_stored(path):
    ran = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (EXAMPLES / "expected" / f"{path.stem}.txt").read_text()


def test_each_output_has_its_example():
    assert {path.stem for path in (EXAMPLES / "expected").iterdir()} == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_one_short_file(path):
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_examples_are_typed():
    command = [sys.executable, "-m", "mypy", "--strict", "examples"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert checked.returncode == 0, checked.stdout
