"""What the commands that count exceptions of traces print."""

import json
import os
import subprocess
import sys

import pytest

import trapline
from trapline.cli import progress, trace_options

pytest.importorskip("pyarrow")
from trapline.trace.questions import groups


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """A run of a guest with a #PF and a #GP at CPL 3."""
    path = tmp_path_factory.mktemp("trace") / "run.jsonl"
    trapline.run("sample:ring3", exceptions="all", timeout=60, output=path)
    return path


def test_a_report(trapline_command, trace):
    done = trapline_command("report", trace, "--by", "vector,cpl", "--sort", "key")
    assert (done.status, done.err) == (0, "")
    first, _, heads, _, *rows = done.out.splitlines()
    assert first == f"{trace}, guest sample:ring3, on unicorn: 2 exceptions"
    assert heads.split() == ["share", "count", "exception", "cpl", "first", "record", "last", "record"]
    assert [row.split()[2:5] for row in rows] == [["1", "#GP", "3"], ["1", "#PF", "3"]]


def test_a_report_as_json(trapline_command, trace):
    found = json.loads(trapline_command("report", trace, "--by", "vector,process", "--json", "-e", "pf").out)
    (row,) = found.pop("rows")
    assert found == {
        "traces": [str(trace)],
        "by": ["vector", "process"],
        "total": row["count"],
        "groups": 1,
        "complete": True,
    }
    assert (row["vector"], row["process"]) == (14, "0x10a000")


def test_over_time(trapline_command, trace):
    found = json.loads(trapline_command("report", trace, "--by", "time", "--json", "--limit", "3").out)
    assert (found["column"], sum(row["count"] for row in found["rows"])) == ("tsc", found["total"])
    assert len(found["rows"]) <= 3
    assert "from time stamp" in trapline_command("report", trace, "--by", "time").out


def test_statistics(trapline_command, trace):
    found = json.loads(trapline_command("stat", trace, "--json").out)
    assert {row["name"]: row["user"] for row in found["vectors"]}["#GP"] == 1
    told = trapline_command("stat", trace)
    assert told.status == 0
    assert "#GP (13)" in told.out
    nothing = trapline_command("stat", trace, "--where", "cpl == 2").out
    assert nothing == f"{trace}, guest sample:ring3, on unicorn: 0 exceptions\n"


def test_names_cannot_write_to_the_terminal(trapline_command, tmp_path):
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps({"seq": 0, "vector": 6, "name": "#UD", "rip": "0x1", "symbol": "\x1b[2Jno"}) + "\n")
    told = trapline_command("report", path).out
    assert "\x1b" not in told
    assert "\\x1b[2Jno" in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["report", "TRACE", "--by", "colour"], "--by colour: there is no such key"),
        (["report", "TRACE", "--by", "cpl,time"], "--by: time goes with no other key"),
        (["report", "TRACE", "--where", "colour"], "colour"),
        (["report", "TRACE", "--limit", "0"], "--limit 0: a whole number"),
        (["stat", "TRACE", "-e", "nothing"], "nothing"),
        (["stat", "TRACE", "--from", "noon"], "--from noon: the number of a record"),
        (["stat", "nowhere"], "nowhere: No such file"),
        (["stat", "FOLDER"], "the folder has no trace"),
    ],
)
def test_wrong_use_is_one_line(trapline_command, trace, tmp_path, words, complaint):
    known = {"TRACE": trace, "FOLDER": tmp_path}
    done = trapline_command(*(known.get(word, word) for word in words))
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert complaint in done.err


def test_a_trace_from_a_pipe(trace):
    command = [sys.executable, "-m", "trapline", "stat", "-", "--json"]
    done = subprocess.run(command, input=trace.read_bytes(), capture_output=True, check=True)
    assert json.loads(done.stdout)["total"] > 0


def test_progress_is_shown_on_a_terminal_alone(trapline_command, trace, monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0)
    assert trapline_command("stat", trace).err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    told = trapline_command("stat", trace)
    assert "#GP" in told.out
    assert "\x1b[" in told.err
    assert os.environ["TERM"] == "xterm"


def test_the_options_are_copies():
    assert trace_options.SORTS == groups.SORTS


def test_a_page(trapline_command, trace, tmp_path):
    path = tmp_path / "page.html"
    done = trapline_command("report", trace, "--html", path, "-e", "pf")
    assert (done.status, done.out) == (0, "")
    text = path.read_text(encoding="utf-8")
    assert done.err == f"{path}: {len(text.encode()):,} bytes\n"
    assert "general protection" not in text
    assert "address 0x" in text
    again = trapline_command("report", trace, "--html", path)
    assert (again.status, path.read_text(encoding="utf-8")) == (2, text)
    assert trapline_command("report", trace, "--html", trace, "--force").status == 2
    assert trapline_command("report", trace, "--html", "-").out.startswith("<!doctype html>")
