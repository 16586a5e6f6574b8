import os
import signal

import pytest

from tools.file_fuzzing import readers, worker
from tools.file_fuzzing.originals import KINDS, originals

FILES = 40
CHECKED = ("evidence", "jsonl.zst", "arrow", "parquet")
"""Kinds that nearly every damage makes useless: with sums, or one structure that all depends on."""


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_read_or_refused_within_bounds(tmp_path, kind):
    figures = worker.read_files(kind, [f"{kind} suite {number}" for number in range(FILES)], tmp_path)
    assert not figures.failures
    assert figures.accepted or kind in CHECKED  # not all are damaged beyond use
    assert figures.slowest < worker.SECONDS
    assert figures.memory < worker.MEMORY


@pytest.mark.parametrize("kind", KINDS)
def test_the_originals_are_read(tmp_path, kind):
    path = tmp_path / "file"
    read = []
    for content in originals(kind):
        path.write_bytes(content)
        read.append(readers.read(kind, path))
    assert all(read) or (kind == "images" and sum(read) > 5)  # some are refused by their loader


def test_a_name_is_always_the_same_file():
    assert worker.content_of("maps", "maps 1") == worker.content_of("maps", "maps 1")
    assert worker.content_of("maps", "maps 1") != worker.content_of("maps", "maps 2")


def endless(path):
    while True:
        pass


def greedy(path):
    return bool(bytearray(2 << 30))


def dead(path):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("reader", "told"), [(endless, "more than 1 s"), (greedy, "MemoryError"), (dead, "died with status")]
)
def test_what_is_wrong_is_a_failure_and_the_other_files_are_read(tmp_path, monkeypatch, reader, told):
    monkeypatch.setattr(worker, "SECONDS", 1)
    first = worker.content_of("maps", "first")
    monkeypatch.setitem(readers._READERS, "maps", lambda path: reader(path) if path.read_bytes() == first else True)
    figures = worker.read_files("maps", ["zero", "first", "second"], tmp_path)
    (failure,) = figures.failures
    assert failure.name == "first"
    assert told in failure.what
    assert figures.accepted == 2
