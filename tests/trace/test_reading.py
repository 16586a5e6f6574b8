import pytest

from trapline.errors import UsageError
from trapline.trace.files import json_columns, json_rows
from trapline.trace.jsonl import json_lines
from trapline.trace.reading import Reading, find_runs
from trapline.trace.selection import read_choice

pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path, make_record, monkeypatch):
    """Two traces, of 3 and of 20 records, read 8 at a time or some more."""
    monkeypatch.setattr(json_columns, "_AT_ONCE", 8)
    monkeypatch.setattr(json_rows, "_BLOCK", 1 << 10)
    (tmp_path / "deep").mkdir()
    for name, count in (("b.jsonl", 3), ("deep/a.jsonl", 20)):
        records = make_record(vector=14) * count
        (tmp_path / name).write_text("".join(json_lines(records, 0, registers=False)))
    (tmp_path / "notes.txt").write_text("no trace")
    return tmp_path


def rows(reading, *names):
    return [tuple(row.values()) for batch in reading.batches(names) for row in batch.to_pylist()]


def test_a_folder_is_its_traces(folder):
    with Reading([str(folder), str(folder / "b.jsonl")]) as reading:
        found = rows(reading, "run", "seq")
        assert reading.count is None
    assert [run for run, seq in found if seq == 2] == ["b.jsonl", "deep/a.jsonl", str(folder / "b.jsonl")]
    assert len(found) == 3 + 20 + 3


@pytest.mark.parametrize(("last", "counts"), [(1, (1, 1)), (3, (3, 3)), (10, (3, 10)), (21, (3, 20))])
def test_the_newest_of_each(folder, last, counts):
    with Reading([str(folder)], last=last) as reading:
        found = rows(reading, "seq", "run")
    assert [seq for seq, run in found if run == "b.jsonl"] == list(range(3 - counts[0], 3))
    assert [seq for seq, run in found if run != "b.jsonl"] == list(range(20 - counts[1], 20))


@pytest.mark.parametrize("where", [None, "seq == 1"])
def test_what_is_looked_at_is_told(folder, where):
    seen = []
    with Reading([str(folder)], read_choice(where=where)) as reading:
        reading.watch(seen.append)
        assert len(rows(reading, "seq")) == (23 if where is None else 2)
    assert sum(seen) == 23


def test_a_choice_is_made_before_the_newest(folder):
    with Reading([str(folder / "deep/a.jsonl")], read_choice(last="10"), last=2) as reading:
        assert rows(reading, "seq") == [(9,), (10,)]


def test_a_folder_without_traces(tmp_path):
    with pytest.raises(UsageError, match=f"^{tmp_path}: the folder has no trace: no file that ends with .parquet, "):
        find_runs([str(tmp_path)])
