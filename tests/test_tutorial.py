"""Every command of the tutorial is run, in the order of the page, and prints what the page shows."""

import re
import shutil
import tomllib

import pytest

from tests.pages import ROOT, blocks, commands, run, same

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.slow
def test_the_tutorial(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    status = 0
    for block in blocks(PAGE):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text)
        elif block.kind == "console":
            for command in commands(block.text):
                status, printed = run(command.text, tmp_path, status)
                assert same(command.expected, printed), (
                    f"{PAGE.name}:{block.line}: $ {command.text}\n{printed}\n--- but the page shows\n{command.expected}"
                )


def test_every_block_is_a_file_or_a_session():
    assert {block.kind for block in blocks(PAGE) if block.title is None} == {"console", "console no-run"}


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_what_is_not_run_installs_something_that_there_is(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for block in blocks(ROOT / page):
        if block.kind == "console no-run":
            assert all(
                re.match("python3 -m venv |pip install |sudo apt install ", c.text) for c in commands(block.text)
            )
    extras = re.findall(r"trapline\[(\w+)\]", (ROOT / page).read_text())
    assert set(extras) <= project["optional-dependencies"].keys()
