import json

from trapline.arch.vectors import FORCEABLE, VECTORS


def test_json_has_a_row_for_each_vector(trapline_command):
    done = trapline_command("vectors", "--json")
    assert (done.status, done.err) == (0, "")
    rows = json.loads(done.out)
    assert [row["vector"] for row in rows] == list(range(32))
    assert sum(row["forceable"] << row["vector"] for row in rows) == FORCEABLE
    for row in rows:
        assert set(row) == set(rows[14])
        assert row["forceable"] == (row["refused"] is None)
    assert rows[14] == {
        "vector": 14,
        "mnemonic": "#PF",
        "name": "page fault",
        "kind": "fault",
        "class": "page fault",
        "error_code": "exitinfo1",
        "forceable": True,
        "refused": None,
    }
    assert rows[8]["error_code"] == "zero"


def test_the_table_says_which_may_be_forced_and_why_not(trapline_command):
    done = trapline_command("vectors")
    assert (done.status, done.err) == (0, "")
    table, _, reasons = done.out.partition("not forced:")
    words = " ".join(reasons.split())
    for row in VECTORS:
        (line,) = (line for line in table.splitlines() if line.split()[:1] == [str(row.vector)])
        assert line.split()[-1] == ("no" if row.refused else "yes")
        if row.refused:
            assert row.refused in words
    assert max(map(len, done.out.splitlines())) <= 80


def test_the_table_can_be_read_without_unicode(in_a_process, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = in_a_process("vectors")
    assert (done.status, done.err) == (0, "")
    assert "#PF" in done.out
