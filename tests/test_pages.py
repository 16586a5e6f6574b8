"""How output is compared with what a page shows."""

import pytest

from tests.pages import blocks, commands, run, same


@pytest.mark.parametrize(
    ("expected", "printed", "equal"),
    [
        ("one\ntwo\n", "one\ntwo\n", True),
        ("one\ntwo\n", "one\n", False),
        ("one\n", "one\ntwo\n", False),
        ("after 0...1 s\n", "after 0.25 s\n", False),
        ("after ... s\n", "after 0.25 s\n", True),
        ("a ... c\n", "a\nc\n", False),
        ("one\n...\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("one\n...\nfour\n", "one\nfour\n", True),
        ("one\n...\nfour\n", "one\ntwo\n", False),
        ("a  b\n", "a      b\n", True),
        ("  a\n", "a\n", False),
        ("a.b\n", "axb\n", False),
    ],
)
def test_what_is_the_same(expected, printed, equal):
    assert same(expected, printed) is equal


def test_a_session_has_commands():
    assert commands("$ one \\\n  more\nout\n$ two\n") == [("one \\\n  more", "out\n"), ("two", "")]
    with pytest.raises(AssertionError, match="before the first command"):
        commands("out\n$ one\n")


def test_a_page_has_blocks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('text\n```python title="a.py"\nimport os\n```\n\n```\nplain\n```\n')
    assert blocks(page) == [("python", "a.py", "import os\n", 3), ("", None, "plain\n", 7)]
    page.write_text("```\nwithout an end\n")
    with pytest.raises(AssertionError, match="odd fence"):
        blocks(page)


def test_a_command_knows_the_status_before_it(tmp_path):
    assert run("echo out; echo error >&2; exit 3", tmp_path) == (3, "out\nerror\n")
    assert run("echo $?", tmp_path, status=3) == (0, "3\n")
