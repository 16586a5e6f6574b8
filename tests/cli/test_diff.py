"""What `trapline diff` prints, and its exit codes."""

import json
from pathlib import Path

import pytest

import trapline
from trapline.cli import trace_options
from trapline.trace.diff import By

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one guest, and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    files = [folder / "first.jsonl", folder / "second.jsonl", folder / "other.jsonl"]
    for file, sample in zip(files, ("pf", "pf", "double-fault"), strict=True):
        trapline.run(f"sample:{sample}", exceptions="all", timeout=60, output=file)
    return files


def test_two_boots_of_one_guest_are_the_same(trapline_command, runs):
    for options in ((), ("--state",)):
        done = trapline_command("diff", *runs[:2], "--summary", *options)
        assert (done.status, done.out, done.err) == (0, "same: 2 exceptions\n", "")


def test_a_difference(trapline_command, runs):
    done = trapline_command("diff", *runs[1:])
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[1] == f"B: {runs[2]}, guest sample:double-fault, on unicorn: 3 exceptions"
    assert lines[2] == "different: 3 new, 2 gone, 0 moved, 0 changed; 0 in common"
    assert "they part after 0 exceptions: the second trace lacks one" in lines
    assert any(line.split()[:2] == ["rip", "0x10133c"] for line in lines)
    assert [line.split()[:3] for line in lines if line.startswith("  new")][-1] == ["new", "B", "2"]
    assert lines[-4].split() == ["#PF", "0x101326", "0x2", "0", "2", "+2"]
    assert "they part after 0, at record 0 of the first: #PF" in trapline_command("diff", *runs[1:], "--summary").out


def test_a_difference_as_json_of_some_exceptions(trapline_command, runs):
    done = trapline_command("diff", *runs[1:], "--json", "-e", "df")
    found = json.loads(done.out)
    assert (done.status, found["same"], found["records"], found["new"]) == (1, False, [0, 1], 1)
    assert found["parting"]["b"]["name"] == "#DF"
    assert found["counts"] == [{"vector": 8, "name": "#DF", "place": "0x101326", "error_code": 0, "a": 0, "b": 1}]


def test_folders_are_compared_in_the_order_of_their_files(trapline_command, runs, tmp_path):
    for name, run in zip(("one", "two"), runs[:2], strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jsonl").symlink_to(run)
        (tmp_path / name / f"{name}.jsonl").symlink_to(runs[2])
    done = trapline_command("diff", tmp_path / "one", tmp_path / "two", "--summary")
    assert (done.status, done.out) == (0, "same: 5 exceptions\n")
    assert done.err == "only the first has one.jsonl\nonly the second has two.jsonl\n"


def test_a_page(trapline_command, runs, tmp_path):
    pytest.importorskip("jinja2")
    page = tmp_path / "page.html"
    assert trapline_command("diff", *runs[1:], "--html", page).status == 1
    assert "Difference from second.jsonl" in page.read_text()
    assert "3 new, 2 gone" in page.read_text()


@pytest.mark.parametrize(
    "second", ["nowhere", "-", "/dev/null", "first.jsonl --where colour", "first.jsonl --html page"]
)
def test_trouble(trapline_command, runs, second, monkeypatch):
    monkeypatch.chdir(runs[0].parent)
    (runs[0].parent / "page").write_text("already there")
    done = trapline_command("diff", runs[0], *second.split())
    assert (done.status, done.err.count("\n")) == (2, 1)


def test_a_full_disk_is_trouble(in_a_process, runs):
    with Path("/dev/full").open("w") as full:
        done = in_a_process("diff", *runs[:2], stdout=full)
    assert (done.status, done.err) == (2, "trapline: stdout: No space left on device\n")


def test_places_are_those_of_the_parser():
    assert tuple(by.value for by in By) == trace_options.PLACES
