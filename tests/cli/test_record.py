import pytest

from trapline.cli import record
from trapline.trace.files import open_trace


@pytest.mark.parametrize(
    ("guest", "name"),
    [
        ("build/kernel.elf", "kernel"),
        ("vmlinuz-6.1.0-13-amd64", "vmlinuz-6.1.0-13-amd64"),
        ("sample:ud", "ud"),
        (".hidden", ".hidden"),
        ("/", "trapline"),
        (None, "trapline"),
    ],
)
def test_the_file_is_named_after_the_guest(guest, name, monkeypatch):
    monkeypatch.setattr(record, "find_spec", lambda _: True)
    assert record.default_name(guest) == f"{name}.parquet"
    monkeypatch.setattr(record, "find_spec", lambda _: None)
    assert record.default_name(guest) == f"{name}.jsonl"


def test_a_recording(trapline_command, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    done = trapline_command("record", "sample:ring3")
    assert done.status == 0
    assert done.err.endswith("\ntrace: ring3.parquet\n")
    with open_trace("ring3.parquet") as trace:
        assert trace.count == 2
        assert [vector for batch in trace.batches(["vector"]) for vector in batch.column(0).to_pylist()] == [14, 13]
    again = trapline_command("record", "sample:ring3")
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "ring3.parquet: the file exists" in again.err
