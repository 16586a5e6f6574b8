"""The examples run, print what is stored beside them, stay short, and are typed."""

import shutil
import subprocess
import sys

import pytest

from tests.pages import ROOT, run, same

EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_prints_what_is_stored(path, tmp_path):
    shutil.copy(path, tmp_path)
    program = "pytest -q" if path.name.startswith("test_") else "python"
    status, printed = run(f"{program} {path.name}", tmp_path)
    assert status == 0, printed
    assert same((EXAMPLES / "expected" / f"{path.stem}.txt").read_text(), printed), printed


def test_each_output_has_its_example():
    assert {path.stem for path in (EXAMPLES / "expected").iterdir()} == {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_one_short_file(path):
    assert len(path.read_text().splitlines()) <= 40


@pytest.mark.slow
def test_the_examples_are_typed():
    command = [sys.executable, "-m", "mypy", "--strict", "examples"]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert checked.returncode == 0, checked.stdout
