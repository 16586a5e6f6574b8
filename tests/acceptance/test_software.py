"""Software that people use starts with every exception forced as on QEMU alone, and is not blamed for anything."""

import hashlib
import json
import re
import signal
import subprocess

import pytest

from tests.acceptance import software
from tests.acceptance.runs import TRAPLINE, blame, read_lines
from tests.acceptance.software import ALL, BY_UEFI, LINUX, LINUX_EFI_ON_FOUR, LINUX_ON_FOUR, LINUX_TRACING, PC
from trapline.arch.vectors import Vector

BOOTS = 20


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Return a function that observes software on QEMU alone, once."""
    seen = {}

    def plain(each):
        if each.name not in seen:
            if reason := each.skip_reason():
                pytest.skip(reason)
            seen[each.name] = software.run_plain(each, tmp_path_factory.mktemp("plain"))
        return seen[each.name]

    return plain


@pytest.fixture
def traced(tmp_path):
    """Return a function that observes software under trapline, and reads the summary."""

    def traced(each, *options, exceptions="all"):
        command = [
            *TRAPLINE,
            "run",
            *each.guest_arguments(),
            "-e",
            exceptions,
            "--memory",
            each.memory,
            "--json",
        ]
        command += [*options, "--", *PC, *each.options]
        command += software.channel_options(tmp_path)
        with (tmp_path / "stderr.txt").open("wb") as words:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words)
        try:
            observation = software.watch(process, each, tmp_path, lambda: process.send_signal(signal.SIGINT))
            return observation, json.loads(process.stdout.read())
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    return traced


def count(summary, vector):
    return sum(row["count"] for row in summary["counts"] if row["vector"] == vector)


@pytest.mark.parametrize("each", [each for each in ALL if each is not LINUX], ids=lambda each: each.name)
def test_it_starts_as_on_qemu_alone(each, plain, traced):
    """As Linux does in test_symbols.py."""
    assert_same(each, plain, traced)


def assert_same(each, plain, traced, *options, exceptions="all"):
    """Compare the software with what it shows on QEMU alone; return the summary."""
    expected = plain(each)
    observation, summary = traced(each, *options, exceptions=exceptions)
    assert observation.text == expected.text
    assert expected.status == 0
    ending = ("off", 0) if each.ends else ("interrupted", 130)
    assert (summary["ending"], summary["exit_code"], observation.status) == (*ending, ending[1])
    assert blame(summary) == []
    return summary


@pytest.mark.parametrize("exceptions", ["all", "pf,de"])
def test_each_page_fault_that_linux_handled_is_recorded_as_linux_saw_it(exceptions, traced, tmp_path):
    if reason := LINUX_TRACING.skip_reason():
        pytest.skip(reason)
    output = tmp_path / "records.jsonl"
    observation, summary = traced(LINUX_TRACING, "-o", str(output), exceptions=exceptions)
    told = dict(re.findall(r"^trapline: (lost|faults|sha256) (\w+)$", observation.text, re.MULTILINE))
    assert told["lost"] == "0"

    records = read_lines(output)
    assert len(records) == summary["recorded"]
    assert told_of(records) == (int(told["faults"]), told["sha256"])
    assert int(told["faults"]) > 1_000


def told_of(records):
    """Return the number and the sum of the page faults between two faults in division, as the kernel tells them."""
    first, last, *_ = (number for number, record in enumerate(records) if record["vector"] == Vector.DE)
    seen = [_in_the_kernels_words(record) for record in records[first:last] if record["vector"] == Vector.PF]
    return len(seen), hashlib.sha256("".join(seen).encode()).hexdigest()


def _in_the_kernels_words(record):
    """Return a page fault as the kernel's trace has it; of its own code it names only the function."""
    if record["cpl"] == 3:
        return f"user {record['address']} {record['rip']} {record['error_code']:#x}\n"
    return f"kernel {record['address']} {record['error_code']:#x}\n"


@pytest.mark.soak
@pytest.mark.parametrize("boot", range(1, BOOTS + 1))
def test_linux_boots_again_and_again(boot, plain, traced):
    observation, summary = traced(LINUX)
    assert observation.text == plain(LINUX).text
    assert summary["exit_code"] == 0
    assert count(summary, Vector.PF) > 10_000


@pytest.mark.soak
@pytest.mark.parametrize("options", [(), ("--isolate",)], ids=["open", "isolated"])
@pytest.mark.parametrize("exceptions", ["none", "all"])
@pytest.mark.parametrize("each", BY_UEFI, ids=lambda each: each.name)
def test_by_uefi_it_starts_as_on_qemu_alone(each, exceptions, options, plain, traced):
    assert_same(each, plain, traced, *options, exceptions=exceptions)


@pytest.mark.soak
@pytest.mark.parametrize("each", [LINUX_ON_FOUR, LINUX_EFI_ON_FOUR], ids=lambda each: each.name)
def test_each_page_fault_that_linux_handled_on_four_cpus_is_recorded_on_its_cpu(each, plain, traced, tmp_path):
    output = tmp_path / "records.jsonl"
    expected = plain(each)
    observation, summary = traced(each, "-o", str(output))
    assert observation.text == expected.text
    assert "trapline: up with 4\ntrapline: offline and online 10 times\ntrapline: lost 0\n" in observation.text
    assert (summary["ending"], blame(summary)) == ("off", [])
    told = re.findall(r"^trapline: cpu (\d) faults (\d+) sha256 (\w+)$", observation.raw, re.MULTILINE)
    assert [cpu for cpu, *_ in told] == list("0123")
    of_cpus = [[], [], [], []]
    for record in read_lines(output):
        of_cpus[record["vcpu"]].append(record)
    assert [told_of(records) for records in of_cpus] == [(int(faults), sha256) for _, faults, sha256 in told]
    assert all(int(faults) > 1_000 for _, faults, _ in told)
