"""Queries see the columns of the records, and nothing else."""

import sys

import pytest

from trapline.errors import MissingExtra, TraplineError, UsageError
from trapline.trace.jsonl import json_lines
from trapline.trace.reading import Reading
from trapline.trace.schema import COLUMNS

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
from trapline.trace.questions import sql


@pytest.fixture
def path(tmp_path, make_record):
    path = tmp_path / "run.jsonl"
    records = b"".join(make_record(vector=vector, rip=rip) for rip, vector in enumerate((14, 6, 14, 13, 6, 14)))
    path.write_text("".join(json_lines(records, 0)))
    return path


@pytest.fixture
def ask(path):
    """Return a function that returns the columns and the rows of a query."""

    def ask(text):
        with Reading([str(path)]) as reading:
            answer = sql.query(reading, text)
            return answer.columns, list(answer.rows)

    return ask


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("select vector, count(*) n from trace group by 1 order by 1", ("vector", "n"), [(6, 2), (13, 1), (14, 3)]),
        ("select count(*) from trace a join trace b using (vector)", ("count(*)",), [(14,)]),
        ("select rip, rip from trace where outcome = 'undelivered' limit 1", ("rip", "rip_2"), [(0, 0)]),
        ("with few as (select * from trace) select max(linear_rip) m from few", ("m",), [(5,)]),
        ("select 1 as one", ("one",), [(1,)]),
        ("select distinct parse_filename(run) f from trace", ("f",), [("run.jsonl",)]),
    ],
)
def test_rows(ask, text, columns, rows):
    found = ask(text)
    assert found[1] == rows
    assert "(" in columns[0] or found[0] == columns


def test_all_columns(ask):
    columns, rows = ask("select * from trace")
    assert columns == (*COLUMNS, "run")
    assert [row[0] for row in rows] == list(range(6))
    assert [row[0] for row in ask("describe trace")[1]] == [*COLUMNS, "run"]


def test_only_what_is_used_is_read(path, monkeypatch):
    read = []
    with Reading([str(path)]) as reading:
        original = reading.batches
        monkeypatch.setattr(reading, "batches", lambda names: read.append(names) or original(names))
        assert list(sql.query(reading, "select cpl from trace where vector = 13").rows) == [(0,)]
    assert read == [("vector", "cpl")]


@pytest.mark.parametrize(
    "text",
    [
        *("", ";", "select", "selec 1", "select colour from trace", "select nothing()", "select 1; select 2"),
        *("copy trace to 'stolen'", "copy (select 1) to 'stolen'", "create table t as select 1", "drop view trace"),
        *("attach 'stolen'", "install httpfs", "load httpfs", "set threads = 1", "reset lock_configuration"),
        *("select * from read_csv('{path}')", "select * from '{path}'", "select * from read_text('{path}')"),
        *("select * from glob('*')", "export database 'stolen'", "pragma database_list", "call pragma_version()"),
        *("select * from path", "select * from reading", "insert into trace select * from trace", "checkpoint"),
    ],
)
def test_everything_else_is_refused_in_a_line(ask, path, text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"\Aquery: [^\n]+\Z"):
        ask(text.replace("{path}", str(path)))
    assert [each.name for each in tmp_path.iterdir()] == ["run.jsonl"]


def test_a_damaged_trace_is_to_blame(ask, path):
    path.write_text(path.read_text() + "{]\n")
    with pytest.raises(UsageError, match=f"^{path}: line 7 is not JSON"):
        ask("select vector from trace")


def test_without_enough_memory(ask, monkeypatch):
    monkeypatch.setattr(sql, "_CONFINED", ("SET memory_limit = '20MB'", *sql._CONFINED))
    with pytest.raises(TraplineError, match="Out of Memory") as raised:
        ask("select list(a.range) from range(1000000) a join range(10) b on true group by a.range % 7")
    assert not isinstance(raised.value, UsageError)


def test_without_duckdb(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'trapline\[query\]'"):
        ask("select 1")
