"""A trace is the same in every format."""

import pytest

from tests.lines import names
from trapline.api import run
from trapline.trace.files import open_trace
from trapline.trace.files.writer import FORMATS

pytest.importorskip("pyarrow")
pytest.importorskip("zstandard")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "run.jsonl"
    run("sample:no-idt", processor="unicorn", timeout=60, output=path)
    return path


def content(path):
    with open_trace(path) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
        return rows, [found.evidence for found in trace.evidence()], trace.metadata


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.suffix)
def test_there_and_back(trapline_command, plain, form, tmp_path):
    other, back = tmp_path / f"run{form.suffix}", tmp_path / "back"
    for source, target in ((plain, other), (other, back)):
        done = trapline_command("convert", source, target)
        assert (done.status, done.out, done.err) == (0, "", "5 exceptions converted\n")
        assert content(target) == content(plain)
    assert trapline_command("convert", other, "-").out == back.read_text()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.suffix)
def test_chosen_records_keep_their_numbers_and_all_evidence(trapline_command, plain, form, tmp_path):
    rows, evidence, metadata = content(plain)
    source, target = tmp_path / f"whole{form.suffix}", tmp_path / f"some{form.suffix}"
    trapline_command("convert", plain, source)
    done = trapline_command("convert", source, target, "--from", "1", "--where", "seq != 3")
    assert (done.status, done.err) == (0, "3 exceptions converted\n")
    assert content(target) == ([rows[seq] for seq in (1, 2, 4)], evidence, metadata)
    assert evidence


def test_what_is_for_a_viewer_alone_is_not_read(trapline_command, plain, tmp_path):
    view = tmp_path / "run.pftrace"
    assert trapline_command("convert", plain, view).status == 0
    done = trapline_command("report", view)
    told = f"trapline: {view}: it is for Perfetto's viewer alone: name the trace that it was made of\n"
    assert (done.status, done.out, done.err) == (2, "", told)


def test_what_a_killed_run_left_becomes_whole(trapline_command, plain, tmp_path):
    path = tmp_path / "run.parquet"
    trapline_command("convert", plain, tmp_path / "run.arrow")
    (tmp_path / "run.arrow").rename(tmp_path / "run.parquet.part")
    path.write_bytes(b"PAR1")
    assert trapline_command("convert", path, tmp_path / "whole.parquet").status == 0
    assert content(tmp_path / "whole.parquet") == content(plain)
    done = trapline_command("convert", path, tmp_path / "run.parquet.part", "--force")
    assert (done.status, done.err.count("same file")) == (2, 1)


def test_what_comes_before_damage_is_written(trapline_command, plain, tmp_path):
    path, target = tmp_path / "run.jsonl", tmp_path / "run.arrow"
    lines = plain.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) * 5000 + b"{]\n")
    done = trapline_command("convert", path, target)
    assert (done.status, done.err) == (2, f"trapline: {path}: line 10001 is not JSON: run -o did not write this file\n")
    assert 0 < len(content(target)[0]) < 5000
    path.write_bytes(b"what")
    target.unlink()
    assert trapline_command("convert", path, target).status == 2
    assert not target.exists()


def test_a_log_becomes_columns(trapline_command, tmp_path):
    log, target, back = tmp_path / "log", tmp_path / "run.parquet", tmp_path / "back.jsonl"
    log.write_text("check_exception old: 0xffffffff new 0x6\n     0: v=06 e=0000 i=0 cpl=0 IP=0008:0000000000101305 "
                   "pc=0000000000101305 SP=0010:0000000000112000 env->regs[R_EAX]=0\n")  # fmt: skip
    assert trapline_command("import", "qemu-int", log, "-o", target).err == "1 exception imported\n"
    with open_trace(target) as trace:
        (batch,) = trace.batches(["linear_rip", "tsc", "mode", "rax"])
        assert batch.to_pylist() == [{"linear_rip": 0x101305, "tsc": None, "mode": None, "rax": None}]
    trapline_command("convert", target, back)
    assert names(back.read_text()) == ["#UD"]
    assert '"tsc"' not in back.read_text()
