import json

import pytest

pytest.importorskip("duckdb")


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "run.jsonl"
    lines = [{"seq": seq, "vector": 6, "name": "#UD", "rip": hex(seq), "symbol": "\x1b[2J+0x0"} for seq in range(200)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_table(trapline_command, trace):
    done = trapline_command("query", trace, "select vector, rip, 0.5 f, symbol from trace")
    assert (done.status, done.err) == (0, "")
    heads, _, *rows = done.out.splitlines()
    assert heads.split() == ["vector", "rip", "f", "symbol"]
    assert rows[99].split() == ["#UD", "0x63", "0.5", "\\x1b[2J"]
    assert rows[100:] == ["", "the first 100 rows; --limit shows more"]


def test_json(trapline_command, trace):
    done = trapline_command("query", trace, "select rip, 1/0 x, ['nan'::double] y from trace", "--json", "--last", "3")
    assert json.loads(done.out) == [{"rip": hex(seq), "x": None, "y": [None]} for seq in (197, 198, 199)]
    assert json.loads(trapline_command("query", trace, "select 1 where false", "--json").out) == []


@pytest.mark.parametrize("text", ["select colour from trace", "drop table trace", "selec"])
def test_wrong_sql_is_one_line(trapline_command, trace, text):
    done = trapline_command("query", trace, text)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("trapline: query: ")
