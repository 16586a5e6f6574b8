"""A guest that writes at random, over memory, ports and by DMA, harms only its own run."""

import re

import pytest

from tests.acceptance.runs import read_lines, under_trapline
from tests.programs.build import labels
from trapline.arch.vectors import Vector

SECONDS = "3"
DAMAGED = re.compile(r"trapline: .*the guest damaged trapline's monitor")


@pytest.mark.parametrize("seed", [2, 3])
def test_an_isolated_guest_leaves_only_records_of_its_own(seed, image, tmp_path):
    guest, trace = image("random", SEED=seed), tmp_path / "trace.jsonl"
    run = under_trapline(guest, "all", "--isolate", "--timeout", SECONDS, "-o", str(trace))
    assert run.status == 124, run.words
    records = read_lines(trace)
    assert len(records) > 100
    assert {(record["vector"], int(record["rip"], 16)) for record in records} == {(Vector.UD, labels(guest)["raise"])}


@pytest.mark.parametrize("seed", [1])
def test_a_guest_that_is_not_isolated_ends_in_time_and_with_the_truth(seed, image, tmp_path):
    trace = tmp_path / "trace.jsonl"
    run = under_trapline(image("random", SEED=seed), "all", "--timeout", SECONDS, "-o", str(trace))
    assert "Traceback" not in run.words
    assert run.status == 124 or DAMAGED.search(run.words), run.words
    assert read_lines(trace)
