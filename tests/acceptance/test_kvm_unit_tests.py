"""The images of kvm-unit-tests, which nobody here wrote, pass and fail in the same lines as on QEMU alone."""

import functools
import re
from typing import NamedTuple

import pytest

from tests.acceptance.runs import PROCESSORS, on_qemu_alone, summed_up
from tools import testguests
from trapline.arch.vectors import Vector

TEST_DEVICE = ("-device", "pc-testdev")


class UnitTest(NamedTuple):
    """An image that ends by itself on one processor in some seconds."""

    image: str
    cpu: str = "EPYC"
    devices: tuple[str, ...] = ()


TESTS = (
    *map(UnitTest, ("eventinj", "hpet_read_test", "hypercall", "memory", "msr", "pcid", "rdpru", "realmode")),
    *map(UnitTest, ("rmap_chain", "setjmp", "smap", "smptest", "syscall", "tsc", "umip", "xsave")),
    UnitTest("emulator", devices=TEST_DEVICE),
    UnitTest("ioapic", devices=TEST_DEVICE),
    *(UnitTest(image, cpu="max") for image in ("memory", "pks", "pku", "umip")),
)
IN_PROCESS = (
    *map(UnitTest, ("eventinj", "hypercall", "memory", "msr", "pmu", "rdpru", "rmap_chain", "setjmp", "smap")),
    *map(UnitTest, ("smptest", "syscall", "tsc", "umip")),
    UnitTest("ioapic", devices=TEST_DEVICE),
)
RUN_BY = {"qemu": TESTS, "unicorn": IN_PROCESS}
"""Which of them a processor has the CPU model and the devices for."""
PAIRS = [(processor, each) for processor in PROCESSORS for each in RUN_BY[processor]]


@pytest.fixture(scope="module")
def folder():
    try:
        return testguests.kvm_unit_tests()
    except testguests.Unobtainable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def plain(folder):
    """Return a function that runs an image on QEMU alone, once."""

    @functools.cache
    def plain(each):
        return on_qemu_alone(folder / f"{each.image}.flat", *each.devices, cpu=each.cpu)

    return plain


def verdicts(console):
    """Return the lines that say PASS, FAIL, SKIP or how many of each; what XGETBV is asked for is random there."""
    lines = re.findall(r"^(?:PASS|FAIL|SKIP|SUMMARY)\b.*$", console.decode().replace("\r", ""), re.MULTILINE)
    return [re.sub(r"XGETBV\(0x\w+\)", "XGETBV", line) for line in lines]


@pytest.mark.parametrize(("processor", "each"), PAIRS, ids=lambda value: getattr(value, "image", value))
def test_the_verdicts_are_the_same(processor, each, folder, plain, tmp_path):
    image = folder / f"{each.image}.flat"
    machine = ("-cpu", each.cpu, *each.devices) if processor == "qemu" else ()
    run = summed_up(image, "all", tmp_path, processor=processor, machine=machine)
    assert verdicts(run.console) == verdicts(plain(each).console) != []
    # A shutdown writes nothing to the exit port; QEMU alone ends with 0 then, as nothing else does.
    assert (run.summary["debug_exit"] or 0) == plain(each).status
    assert (run.summary["ending"] == "shutdown") == (plain(each).status == 0)


def test_a_cpu_without_pcid_does_not_switch_it_on_in_process(folder, tmp_path):
    # QEMU 7.2 sets CR4.PCIDE whatever the CPU model, and fails the first of them.
    run = summed_up(folder / "pcid.flat", "all", tmp_path, processor="unicorn")
    tests = ("Test on PCID when disabled", "Test on INVPCID when disabled")
    assert verdicts(run.console) == [*(f"PASS: {test}" for test in tests), "SUMMARY: 2 tests"]
    assert run.counts()[Vector.GP] == 1
