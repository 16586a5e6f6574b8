"""A kernel with demand paging, processes, system calls and a timer runs as on QEMU alone, with and without a mask."""

import functools
import re

import pytest

from tests.acceptance.runs import (
    PROCESSORS,
    assert_same,
    on_qemu_alone,
    read_lines,
    summed_up,
    trapline,
    under_trapline,
)
from tests.programs.kernel import build_kernel
from trapline.arch.vectors import Vector
from trapline.processors.qemu.launch import facts_of
from trapline.processors.qemu.programs import find_qemu

COMPARED = ("vector", "error_code", "rip", "cs", "cpl", "address")
UNDELIVERED = 2
"""Page faults that became the #DF: of a push to a missing stack, and of its delivery to the same."""


def without(processor):
    """Return what the kernel is built without: what a processor cannot run, or what no two runs see alike.

    Where an interrupt pushes RF set, the frame of a trap has it too if one came just before.
    """
    if processor == "unicorn":
        return {"WATCHPOINT": 0, "RF": 0}
    return {} if facts_of(find_qemu()).interrupts_keep_rf else {"RF": 0}


@pytest.fixture(scope="module")
def plain(kernel):
    """Return a function that runs the kernel on QEMU alone, once for each set of defines."""

    @functools.cache
    def plain(**defines):
        return on_qemu_alone(kernel(**defines).image)

    return plain


@pytest.fixture(scope="module")
def recorded(kernel, tmp_path_factory):
    """Return a function that runs the kernel and returns what was recorded; its `once` remembers."""

    def run(processor, exceptions, **defines):
        folder = tmp_path_factory.mktemp("run")
        output = folder / "records.jsonl"
        run = summed_up(kernel(**defines).image, exceptions, folder, "-o", str(output), processor=processor)
        assert run.status == 0, run.words
        return [tuple(record[name] for name in COMPARED) for record in read_lines(output)]

    run.once = functools.cache(run)
    return run


@pytest.mark.parametrize("defines", [{}, {"WATCHPOINT": 0}], ids=["whole", "without a watchpoint"])
def test_it_gets_through_on_qemu_alone(defines, plain):
    run = plain(**defines)
    assert re.search(rb"\nhash [0-9a-f]{8,16}\n$", run.console)
    assert b"wrong" not in run.console
    assert run.status == 1  # what QEMU makes of the kernel's 0


@pytest.mark.parametrize("mask", ["none", "all"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_it_sees_the_same(processor, mask, kernel, plain):
    defines = without(processor)
    run = under_trapline(kernel(**defines).image, mask, processor=processor)
    assert_same(run.console, plain(**defines).console)
    assert run.status == 0


@pytest.mark.parametrize("processor", PROCESSORS)
def test_each_exception_that_it_counted_is_recorded(processor, plain, recorded):
    defines = without(processor)
    told = {int(vector): int(count) for vector, count in re.findall(rb" (\d+)=(\d+)", plain(**defines).console)}
    vectors = [vector for vector, *_ in recorded.once(processor, "all", **defines)]
    seen = {vector: vectors.count(vector) for vector in told}
    assert seen == {**told, Vector.PF: told[Vector.PF] + UNDELIVERED}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_each_run_records_the_same(processor, recorded):
    defines = without(processor)
    assert recorded(processor, "all", **defines) == recorded.once("qemu", "all", **defines)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_narrow_mask_records_its_part_of_all(processor, recorded):
    defines = without(processor)
    forced = {Vector.PF, Vector.NM}
    whole = recorded.once(processor, "all", **defines)
    assert recorded(processor, "pf,nm", **defines) == [record for record in whole if record[0] in forced]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_crash_is_explained_with_its_source_line(processor, kernel, tmp_path):
    source = (build_kernel.HERE / "selftest.c").read_text().splitlines()
    line = f"selftest.c:{source.index('    nowhere[2] = 1;') + 1}"
    built, file = kernel(CRASH=1, **without(processor)), tmp_path / "crash.jsonl"
    symbols = ("--symbols", str(built.symbols))
    run = under_trapline(built.image, "all", "--live", "-o", str(file), *symbols, processor=processor)
    assert run.status == 3
    live, *_ = run.words.splitlines()
    assert re.search(rf"^#PF .* crash\+0x[0-9a-f]+ \({line}\)", live)
    told = " ".join(trapline("explain", str(file), *symbols).console.decode().split())
    assert re.search(rf"#PF\(0x2\) at [0-9a-f:]+ crash\+0x[0-9a-f]+ \({line}\), CPL 0", told)
    assert " write to 0x10, a null pointer (not mapped" in told
    assert "since no IDT is loaded: IDTR has base 0 and limit 0." in told
    assert told.removeprefix("up to record 3 ") in " ".join(run.words.split())
