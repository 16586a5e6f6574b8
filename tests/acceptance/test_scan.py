"""A guest that reads all MSRs, CPUID leaves and I/O ports (tests/programs/scan.asm) finds what README lists."""

import functools
import re
from pathlib import Path

import pytest

from tests.acceptance.runs import on_qemu_alone, under_trapline

README = Path(__file__).parents[2] / "README.md"
ROW = re.compile(r"^\| `(msr|cpuid|port) ([0-9a-f]+)`(?: to `([0-9a-f]+)`)? \|", re.MULTILINE)
"""A row of the list: what reads differently."""
MODES = {"": ((), ()), "isolated": (("--isolate",), ("-nic", "none"))}
"""Options, and those of a plain QEMU that has the same devices."""


def listed():
    """Return what README names, as the guest names it."""
    return {
        f"{kind} {number:0{len(first)}x}"
        for kind, first, last in ROW.findall(README.read_text())
        for number in range(int(first, 16), int(last or first, 16) + 1)
    }


def scanned(run):
    """Return what the guest read, by its name."""
    lines = [line.split(maxsplit=2) for line in run.console.decode().splitlines()]
    assert (run.status, lines.pop()) == (0, ["DONE"]), run.words
    told = {f"{kind} {number}": values for kind, number, values in lines}
    for port in range(4, 0x10000):  # one that reads as the one 4 below is not told
        told.setdefault(f"port {port:04x}", told.get(f"port {port - 4:04x}", ""))
    return told


def different(expected, found):
    """Return what two scans have read differently."""
    return {name for name in {*expected, *found} if expected.get(name) != found.get(name)}


@pytest.fixture(scope="module")
def by_itself(image):
    """Return a function that scans a plain QEMU as in a mode, once."""
    return functools.cache(lambda mode: scanned(on_qemu_alone(image("scan"), *MODES[mode][1], debug_exit=())))


@pytest.mark.parametrize("mask", ["none", "all"])
@pytest.mark.parametrize("mode", MODES)
def test_a_scan_finds_what_the_readme_lists(mode, mask, image, by_itself):
    found = scanned(under_trapline(image("scan"), mask, *MODES[mode][0]))
    assert different(by_itself(mode), found) == listed()


def test_the_scan_reads_what_it_says(by_itself):
    """Something of each kind is there, and what is left out is not."""
    expected = by_itself("")
    assert {"msr 00000277", "msr c0000080", "cpuid 00000000", "cpuid 80000008"} <= {*expected}
    assert sum(name.startswith("cpuid") for name in expected) == 150
    assert expected["port 0cfc"] != expected["port 0cf4"]
    assert expected["port 0071"] == expected["port 006d"]
