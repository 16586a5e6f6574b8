"""Every command of the tutorial is run, in the order of the page, and prints what the page shows."""

import shutil

import pytest

from tests.pages import ROOT, blocks, check

PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.slow
def test_the_tutorial(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    check(PAGE, tmp_path)


def test_every_block_is_a_file_or_a_session():
    assert {block.kind for block in blocks(PAGE) if block.title is None} == {"console", "console no-run"}
