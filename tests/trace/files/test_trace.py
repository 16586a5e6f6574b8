"""What is read of a trace is what was recorded."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trapline.errors import UsageError
from trapline.machine.record import RECORD_SIZE
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions
from trapline.trace.files import open_trace
from trapline.trace.jsonl import json_lines
from trapline.trace.rules import parse_rule
from trapline.trace.stored import Metadata, run_line

pa = pytest.importorskip("pyarrow")


def lookup(address):
    return Symbol("operator+", address & 0xFF, "file.c", 7) if address & 1 else None


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_lines_have_every_column(batches, tmp_path, data):
    records = b"".join(data.draw(batches))
    path = tmp_path / "run.jsonl"
    path.write_bytes(run_line(Metadata()) + "".join(json_lines(records, 5, lookup)).encode())
    exceptions = Exceptions(records, first=5, lookup=lookup)
    with open_trace(path) as trace:
        for _ in range(2):
            found = [row for batch in trace.batches() for row in batch.to_pylist()]
            assert found == exceptions.to_arrow().to_pylist()
        for selection in ("rax > rbx or cpl == 3", "not has_symbol", parse_rule("kernel:pf,gp@op*")):
            chosen = [seq for batch in trace.batches(["seq"], selection) for seq in batch.column(0).to_pylist()]
            assert chosen == [record.seq for record in exceptions.where(selection)]


def test_an_old_record_lacks_columns(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text(
        '{"seq":0,"vector":6,"name":"#UD","rip":"0x10"}\n{"seq":1,"vector":6,"name":"#UD","rip":"0x100000000"}\n'
    )
    with open_trace(path) as trace:
        (batch,) = trace.batches(["linear_rip", "mode", "has_symbol", "rax"], where="not cpl == 0")
        assert batch.to_pylist() == [
            {"linear_rip": None, "mode": None, "has_symbol": False, "rax": None},
            {"linear_rip": 1 << 32, "mode": None, "has_symbol": False, "rax": None},
        ]
        with pytest.raises(UsageError, match=r"there is no column nothing\. Columns: seq, "):
            trace.batches(["nothing"])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "it is empty"),
        (b"\x7fELF", "not a trace: neither JSON lines"),
        (b"PAR1 and no more", r"its end is missing, as of a run that was killed, and .*\.part is not there"),
        (b"\xff\xff\xff\xff\x10\0\0\0", "it is damaged: "),
        (b"{]\n", "line 1 is not JSON"),
    ],
)
def test_another_file_is_refused(tmp_path, content, complaint):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"^{path}: {complaint}"):
        open_trace(path)


def test_row_groups_of_older_records_are_not_read(tmp_path):
    import pyarrow.parquet as pq

    from trapline.trace.files.layout import STORED

    path = tmp_path / "run.parquet"
    table = Exceptions(bytes(100 * RECORD_SIZE)).to_arrow().select(STORED).replace_schema_metadata({"trapline": "{}"})
    for statistics, least in ((True, 60), (False, 0)):
        pq.write_table(table, path, row_group_size=20, write_statistics=statistics)
        with open_trace(path) as trace:
            seqs = [seq for batch in trace.batches(["seq"], first=65) for seq in batch.column(0).to_pylist()]
        assert seqs == list(range(least, 100))
