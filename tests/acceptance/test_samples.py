"""Each sample guest does what it says, and the same with every exception forced as on QEMU alone."""

import functools
import json
import re

import pytest

from tests.acceptance.runs import PROCESSORS, assert_same, on_qemu_alone, summed_up
from trapline.arch.registers import RFLAGS
from trapline.arch.vectors import VECTORS, Vector
from trapline.guests.samples import SAMPLES, End
from trapline.guests.samples.exceptions import EXCEPTIONS

_NOT_RAISED = {"ac", "xm"}
"""QEMU's TCG checks no alignment and unmasks no SSE exception."""
_SAID_BY_HANDLER = re.compile(r"^(#\w\w)(\(0x[0-9a-f]+\))?( for 0x[0-9a-f]+)? at rip 0x[0-9a-f]+, handled$", re.M)
_ALSO = {("qemu", "non-canonical-handler"): {Vector.PF}}
"""QEMU finds the address only when it fetches from it, and so goes on until the stack ends."""
_LEFT_BY_LOADER = {"rbx": "0x5018", "rcx": "0x0", "rdx": "0x0", "rdi": "0x0"}
"""Registers that QEMU's loader of multiboot guests leaves with other values, as in process."""
_COUNTS = {
    "demand-paging": {Vector.PF: 64},
    "ring3": {Vector.GP: 1, Vector.PF: 1},
    "ud-loop": {Vector.UD: 20_000},
    "pf": {Vector.PF: 2},
    "double-fault": {Vector.PF: 2, Vector.DF: 1},
    "stack-overflow": {Vector.PF: 3, Vector.DF: 1},
}
_CAUSES = {
    "no-idt": "no IDT is loaded",
    "idt-limit-0": "IDTR.limit is 0x0",
    "gate-not-present": r"IDT entry 6 \(#UD\) is not present",
    "bad-selector": "the selector 0x1000 in IDT entry 6 .* is beyond the end of the GDT",
    "non-canonical-handler": "0x800000000000,? (which )?is not a canonical address",
    "bad-tss-stack": "RSP0 in the TSS is 0x800000000000, which is not a canonical address",
    "stack-overflow": "the kernel stack overflowed",
    "no-ist": "RSP is 0x80000000, which does not point to a stack",
}
"""What is wrong with each sample that shuts down, and the last thing that is told: some begin with the exception."""


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """Return a function that runs a sample on QEMU alone, once."""
    folder = tmp_path_factory.mktemp("samples")

    @functools.cache
    def plain_run(sample):
        image = folder / f"{sample.name}.bin"
        image.write_bytes(sample.build())
        return on_qemu_alone(image)

    return plain_run


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("sample", [row for row in SAMPLES if row.cpus == 1], ids=lambda sample: sample.name)
def test_a_sample_ends_as_it_says(processor, sample, plain_run, tmp_path):
    plain = plain_run(sample)
    trace, other = tmp_path / "trace.jsonl", tmp_path / "other.jsonl"
    runs = {
        mask: summed_up(f"sample:{sample.name}", mask, tmp_path, "-o", str(trace), processor=processor)
        for mask in ("none", "all")
    }
    for run in runs.values():
        assert_same(run.console, plain.console)
    lines = plain.console.decode().splitlines()
    assert lines[0] == sample.description
    if sample.end is End.SHUTDOWN:
        assert lines[1:] == []
        assert [run.summary["ending"] for run in runs.values()] == ["shutdown", "shutdown"]
        assert [run.status for run in runs.values()] == [3, 3]
        assert re.search(_CAUSES[sample.name], runs["all"].summary["explanation"]["causes"][-1])
        assert {each["name"] for each in runs["all"].summary["unreturned"]} <= {"#UD"}
    elif sample.name in _NOT_RAISED:
        assert lines[1:] == ["nothing was raised: this CPU does not know the exception"]
        assert [run.status for run in runs.values()] == [4, 4]
    elif sample.end is End.PANIC:
        assert lines[1:] == ["KERNEL PANIC"]
        assert (plain.status, [run.status for run in runs.values()]) == (3, [4, 4])
        assert [each["name"] for each in runs["all"].summary["unreturned"]] == ["#PF"]
    else:
        assert lines[-1] == "done"
        if sample in EXCEPTIONS:
            check_handler(sample, plain.console)
        assert (plain.status, [run.status for run in runs.values()]) == (1, [0, 0])
    assert runs["none"].counts() == {}
    counts = runs["all"].counts()
    if sample.name not in _NOT_RAISED:
        assert set(counts) == {*sample.vectors, *_ALSO.get((processor, sample.name), ())}
    assert counts == _COUNTS.get(sample.name, counts)
    if processor == "qemu" and (processor, sample.name) not in _ALSO:
        summed_up(f"sample:{sample.name}", "all", tmp_path, "-o", str(other), processor="unicorn")
        ours, theirs = records(other), records(trace)
        assert len(ours) == len(theirs)
        assert [alike(*pair) for pair in zip(ours, theirs, strict=True)] == [alike(record, record) for record in ours]


def records(path):
    lines = map(json.loads, path.read_text().splitlines())
    return [line for line in lines if "type" not in line]


def alike(ours, theirs):
    """Return a record of QEMU's as one of the other processor would be, but for the departures that README lists."""
    found = {name: value for name, value in theirs.items() if name != "tsc"}
    found["rflags"] = f"{int(theirs['rflags'], 16) & ~RFLAGS.RF:#x}"
    found |= {name: ours[name] for name, left in _LEFT_BY_LOADER.items() if ours[name] == left}
    for event in ("vectoring", "injected"):
        found[event] = found[event] and {**found[event], "error_code": code_alike(found[event])}
    return found | {"error_code": code_alike(found)}


def code_alike(event):
    """Return an error code without EXT; of a gate, which QEMU 7.2 numbers otherwise, only that it is one."""
    vector, code = event["vector"], event["error_code"]
    if code is None or not Vector.TS <= vector <= Vector.GP:
        return code
    return "gate" if code & 2 else code & ~1


def check_handler(sample, console):
    told = _SAID_BY_HANDLER.findall(console.decode())
    row = VECTORS[Vector[sample.name.upper()]]
    assert told
    for mnemonic, code, address in told:
        assert mnemonic == row.mnemonic
        assert bool(code) == (row.error_code.name != "ABSENT")
        assert bool(address) == (row.vector == Vector.PF)
