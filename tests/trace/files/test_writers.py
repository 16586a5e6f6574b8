"""Each format gives back what was written, also up to where it is cut off."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trapline.arch.registers import Gprs
from trapline.arch.vmcb import SaveArea
from trapline.errors import UsageError
from trapline.explain.evidence import Evidence
from trapline.explain.memory import PartialMemory
from trapline.machine.record import RECORD_SIZE
from trapline.symbols import Symbol
from trapline.trace.exceptions import Exceptions
from trapline.trace.files import open_trace
from trapline.trace.files.writer import FORMATS, Note, format_of
from trapline.trace.jsonl import json_lines
from trapline.trace.stored import Metadata, SymbolFile

pa = pytest.importorskip("pyarrow")
pytest.importorskip("zstandard")

RUN = Metadata(guest="kernel.elf", exceptions=1 << 14, symbols=[SymbolFile(name="a", slide="0x10")])
formats = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.suffix)


def evidence(number):
    return Evidence(SaveArea(), Gprs(), None, None, None, None, None, 48, PartialMemory({}), number).to_json()


def lookup(address):
    return Symbol("operator+", address & 0xFF, "file.c", 7) if address & 1 else None


def write(form, folder, pieces, metadata=RUN, *, closed=True):
    """Write pieces: batches of records, and numbers of evidence. Return the file."""
    path = folder / f"run{form.suffix}"
    with path.open("wb") as file, path.with_name(f"{path.name}.part").open("wb") as part:
        writer = form.make(file, part if form.has_part else None)
        writer.begin(metadata)
        count, notes = 0, []
        for piece in pieces:
            if isinstance(piece, int):
                notes.append(Note(0, evidence(piece)))
                continue
            exceptions = Exceptions(piece, first=count, lookup=lookup)
            writer.write(exceptions.batch(), [*notes, Note(len(exceptions) // 2, evidence(1000 + count))])
            writer.flush()
            count, notes = count + len(exceptions), []
        writer.write(Exceptions(b"").batch(), notes)
        writer.flush()
        writer.close() if closed else writer.abandon()
    if closed:
        path.with_name(f"{path.name}.part").unlink()
    return path


def read(path):
    with open_trace(path) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
        assert trace.count in (None, len(rows))
        return rows, [found.evidence.seq for found in trace.evidence()], trace.metadata


@formats
@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_what_is_written_is_read(form, batches, tmp_path_factory, data):
    pieces = [each for each in data.draw(batches) for each in (each, len(each))]
    path = write(form, tmp_path_factory.mktemp("written"), pieces)
    records = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    rows, sequences, metadata = read(path)
    assert rows == Exceptions(records, lookup=lookup).to_arrow().to_pylist()
    count, wanted, held = 0, [], []
    for piece in pieces:
        if isinstance(piece, int):
            held.append(piece)
        else:
            wanted += [*held, 1000 + count]
            count, held = count + len(piece) // RECORD_SIZE, []
    assert sequences == [*wanted, *held]
    assert metadata == RUN


@given(data=st.data())
@settings(deadline=None)
def test_blocks_and_single_lines_have_the_same_text(batches, data):
    from trapline.trace.json_block import json_block

    records = b"".join(data.draw(batches))
    exceptions = Exceptions(records, first=7, lookup=lookup)
    assert json_block(exceptions.batch()) == "".join(json_lines(records, 7, lookup)).encode()


@formats
def test_registers_may_be_left_out(form, make_record, tmp_path):
    path = write(form, tmp_path, [make_record(rax=5)], Metadata(registers=False))
    ((row,), _, metadata) = read(path)
    assert not metadata.registers
    assert (row["rax"], row["vector"]) == (None, 0)


@formats
def test_a_killed_run_is_read_up_to_the_last_second(form, make_record, tmp_path):
    pieces = [make_record(vector=14), make_record(vector=13), 7]
    path = write(form, tmp_path, pieces, closed=False)
    rows, sequences, metadata = read(path)
    assert [row["vector"] for row in rows] == [14, 13]
    assert sequences == [1000, 1001, 7]
    assert metadata == RUN
    cut = path.with_name(f"{path.name}.part") if form.has_part else path
    content = cut.read_bytes()
    counts = set()
    for size in range(len(content) - 1, len(content) // 4, -97):
        cut.write_bytes(content[:size])
        with contextlib.suppress(UsageError):  # the metadata is cut off
            counts.add(len(read(path)[0]))
    assert {1, 2} <= counts


def test_a_name_asks_for_a_format():
    assert format_of("a.b/RUN.PARQUET").suffix == ".parquet"
    assert format_of("run.jsonl.zst").suffix == ".jsonl.zst"
    assert {format_of(name).suffix for name in ("run", "run.json", "x.log", "-")} == {".jsonl"}
    with pytest.raises(UsageError, match=r"run\.csv: there is no format \.csv; a trace is written as \.jsonl, "):
        format_of("run.csv")
