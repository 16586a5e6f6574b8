"""A kernel with demand paging, processes, system calls and a timer runs as on QEMU alone, with and without a mask."""

import functools
import re

import pytest
from runs import PROCESSORS, assert_same, on_qemu_alone, read_lines, summed_up, under_trapline

from trapline.arch.vectors import Vector

COMPARED = ("vector", "error_code", "rip", "cs", "cpl", "address")
UNDELIVERED = 2
"""Page faults that became the #DF: of a push to a missing stack, and of its delivery to the same."""


@pytest.fixture(scope="module")
def plain(kernel):
    return on_qemu_alone(kernel.image)


@pytest.fixture(scope="module")
def recorded(kernel, tmp_path_factory):
    """Return a function that runs the kernel and returns its records, the first time of each kind."""

    def run(processor, exceptions):
        folder = tmp_path_factory.mktemp("run")
        output = folder / "records.jsonl"
        summary = summed_up(kernel.image, exceptions, folder, "-o", str(output), processor=processor)
        assert summary.status == 0, summary.words
        return [tuple(record[name] for name in COMPARED) for record in read_lines(output)]

    run.once = functools.cache(run)
    return run


def test_it_gets_through_on_qemu_alone(plain):
    assert re.search(rb"\nhash [0-9a-f]{16}\n$", plain.console)
    assert b"wrong" not in plain.console
    assert plain.status == 1  # what QEMU makes of the kernel's 0


@pytest.mark.parametrize("mask", ["none", "all"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_it_sees_the_same(processor, mask, kernel, plain):
    run = under_trapline(kernel.image, mask, processor=processor)
    assert_same(run.console, plain.console)
    assert run.status == 0


@pytest.mark.parametrize("processor", PROCESSORS)
def test_each_exception_that_it_counted_is_recorded(processor, plain, recorded):
    told = {int(vector): int(count) for vector, count in re.findall(rb" (\d+)=(\d+)", plain.console)}
    vectors = [vector for vector, *_ in recorded.once(processor, "all")]
    seen = {vector: vectors.count(vector) for vector in told}
    assert seen == {**told, Vector.PF: told[Vector.PF] + UNDELIVERED}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_each_run_records_the_same(processor, recorded):
    first, *_ = PROCESSORS
    assert recorded(processor, "all") == recorded.once(first, "all")


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_narrow_mask_records_its_part_of_all(processor, recorded):
    forced = {Vector.PF, Vector.NM}
    whole = recorded.once(processor, "all")
    assert recorded(processor, "pf,nm") == [record for record in whole if record[0] in forced]
