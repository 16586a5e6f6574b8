"""The suffix of -o chooses a format; each has what JSON lines have, also after a run that was killed or had no room."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from trapline.api import run
from trapline.cli.main import main
from trapline.errors import UsageError
from trapline.trace.files import open_trace
from trapline.trace.files.writer import FORMATS

pytest.importorskip("pyarrow")
pytest.importorskip("zstandard")

UD_FOR_EVER = bytes.fromhex("c7061800117c c7061a000000 bc0070 0f0b 83c406 ebf9")
"""Real mode: #UD again and again."""
suffixes = pytest.mark.parametrize("suffix", [form.suffix for form in FORMATS])
LIMIT = 60


def content(path):
    with open_trace(path) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
        return [row | {"tsc": 0} for row in rows], [found.evidence for found in trace.evidence()], trace.metadata


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The file of a run that shut down, in each format."""
    folder = tmp_path_factory.mktemp("stored")
    for form in FORMATS:
        run("sample:no-idt", processor="unicorn", timeout=LIMIT, output=folder / f"run{form.suffix}")
    return lambda suffix: folder / f"run{suffix}"


@suffixes
def test_a_format_has_what_lines_have_and_is_explained(stored, suffix, capsys):
    plain, path = stored(".jsonl"), stored(suffix)
    (rows, evidence, metadata), expected = content(path), content(plain)
    assert (rows, evidence) == expected[:2]
    assert len(rows) > 1
    assert (metadata.guest, metadata.processor, metadata.exceptions) == ("sample:no-idt", "unicorn", 0x2B7DFB)
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(f"run{form.suffix}" for form in FORMATS)
    told = []
    for each in (plain, path):
        assert main(["explain", str(each)]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1] != ""


@suffixes
def test_a_killed_run_leaves_what_was_recorded(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    process = subprocess.Popen(command(path))
    end = time.monotonic() + LIMIT
    try:
        while count(path) < 1000:
            assert time.monotonic() < end, "nothing is written"
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert count(path) >= 1000
    with open_trace(path) as trace:
        seen = [seq for batch in trace.batches(["seq"], "vector == ud") for seq in batch.column(0).to_pylist()]
    assert seen == list(range(len(seen)))


@suffixes
def test_a_full_disk_ends_the_run_and_what_was_written_is_read(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    limited = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))  # noqa: E731
    done = subprocess.run(command(path), capture_output=True, text=True, preexec_fn=limited, timeout=LIMIT, check=False)
    assert done.returncode == 1
    complaints = [line for line in done.stderr.splitlines() if line.startswith("trapline: ")]
    assert complaints == [f"trapline: {path}: File too large; what was recorded before is kept"]
    assert "Traceback" not in done.stderr
    assert "guest: failed after" in done.stderr
    assert count(path) > 100


def command(path):
    image = path.with_name("guest.bin")
    image.write_bytes(UD_FOR_EVER)
    return [sys.executable, "-m", "trapline", "run", image, "--entry-mode", "16", "-o", path, "--timeout", str(LIMIT)]


def count(path):
    """Return how many records can be read."""
    try:
        with open_trace(path) as trace:
            return sum(batch.num_rows for batch in trace.batches(["seq"]))
    except UsageError:  # not yet
        return 0


def test_what_a_killed_run_left_needs_force(tmp_path):
    path = tmp_path / "run.parquet"
    path.with_name("run.parquet.part").write_text("precious")
    with pytest.raises(UsageError, match=r"run\.parquet\.part: the file exists; --force overwrites it"):
        run("sample:ud", processor="unicorn", timeout=LIMIT, output=path)
    assert [each.name for each in tmp_path.iterdir()] == ["run.parquet.part"]
    run("sample:ud", processor="unicorn", timeout=LIMIT, output=path, force=True)
    assert [each.name for each in tmp_path.iterdir()] == ["run.parquet"]


def test_a_pipe_gets_batches_too(tmp_path):
    fifo = tmp_path / "run.arrow"
    os.mkfifo(fifo)
    copy = tmp_path / "copy"
    with copy.open("wb") as file:
        reader = subprocess.Popen(["cat", fifo], stdout=file)
    run("sample:ring3", processor="unicorn", timeout=LIMIT, output=fifo)
    assert reader.wait(LIMIT) == 0
    assert count(copy) == 2


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"run\.csv: there is no format \.csv"):
        run("sample:ud", processor="unicorn", output=tmp_path / "run.csv")
