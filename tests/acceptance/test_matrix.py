"""Guests that raise every event a PC can raise see the same with exceptions forced as on QEMU alone."""

import re

import pytest

from tests.acceptance.runs import assert_same, summed_up, under_trapline
from trapline.arch.mask import parse_mask
from trapline.arch.vectors import Vector

# Each of them once showed the monitor to its guest: a single vector, a class without one of its members.
MASKS = (
    *("none", "all", "all,!pf", "0x1", "0x2", "0x8", "0x40", "0x800", "0x1000", "0x2000", "0x4000", "0x4001"),
    *("0x627ffb", "0xfffffffb"),
)
MANY = ("none", "all", "all,!pf", "0x843", "0x2008", "0x4000")
"""For long mode: single vectors and classes are tried in real mode, where a run takes a second."""
MOST = ("none", "all", "0x1000")
"""For the guests with segments of their own, whose runs take ten times as long."""
QUIET = ("long", "pm32", "pm32_rom", "pm16")
"""Those that print a hash over all records, but no line for each, half a million bytes: QEMU sends one at a time."""
PAIRS = [
    *(("real", mask) for mask in MASKS),
    *(("long", mask) for mask in MANY),
    *((guest, mask) for guest in ("pm32", "pm16") for mask in MOST),
    *((guest, mask) for guest in ("count", "cpuid", "smm") for mask in ("none", "all")),
]
GP, UD, DF = Vector.GP.value, Vector.UD.value, Vector.DF.value
BP, NP, PF = Vector.BP.value, Vector.NP.value, Vector.PF.value

# What leads to each shutdown, newest last: the vector, and what was being delivered when it was raised.
CHAINS = {
    "shutdown0": [(UD, None), (GP, UD), (GP, GP), (DF, None), (GP, DF)],
    "shutdown1": [(PF, None), (PF, PF), (DF, None), (PF, DF)],
    "shutdown2": [(UD, None), (NP, UD), (GP, NP), (DF, None), (NP, DF)],  # #NP has no gate at all
    "shutdown3": [(BP, None), (GP, BP), (GP, GP), (DF, None), (GP, DF)],
    "shutdown4": [(BP, None), (GP, BP), (GP, GP), (DF, None), (GP, DF)],
    "shutdown5": [(PF, None), (PF, PF), (DF, None), (PF, DF)],
}


@pytest.fixture
def seen(image, plain):
    """Return a function that runs a guest, and asserts that it sees what it sees on QEMU alone, and says so."""

    def seen(guest, mask, *isolation, devices=()):
        quiet = {"QUIET": 1} if guest in QUIET else {}
        run, expected = under_trapline(image(guest, **quiet), mask, *isolation), plain(guest, *devices, **quiet)
        if quiet and run.console != expected.console:  # its text tells where
            assert_same(under_trapline(image(guest), mask, *isolation).console, plain(guest, *devices).console)
        assert_same(run.console, expected.console)
        assert (run.status, expected.status) == (0, 1)  # the guest's 0, and what QEMU makes of it

    return seen


@pytest.mark.parametrize(("guest", "mask"), PAIRS)
def test_the_guest_sees_the_same(guest, mask, seen):
    seen(guest, mask)


@pytest.mark.parametrize(("guest", "vector"), [("intloop", None), ("gploop", GP)])
@pytest.mark.parametrize("mask", ["none", "all", "all,!bp,!of"])
def test_int_n_and_protection_faults_need_no_python(guest, vector, mask, image, tmp_path):
    run = summed_up(image(guest, N=5000), mask, tmp_path)
    assert run.console.endswith(b"=5000\n")
    assert run.counts() == ({vector: 5000} if vector is not None and mask != "none" else {})
    assert run.summary["exits"] < 50


@pytest.mark.parametrize("guest", ["long", "pm32_rom", "pm16", "real", "cpuid", "smm"])
def test_an_isolated_guest_sees_the_same(guest, seen):
    seen(guest, "all", "--isolate", devices=("-nic", "none") if guest == "smm" else ())  # the card brings SMIs


@pytest.mark.parametrize(("guest", "mask"), [("long_refused", "all"), ("pm32_refused", "none")])
def test_a_state_that_vmrun_refuses_ends_the_run_in_words(guest, mask, image, plain):
    run = under_trapline(image(guest), mask)
    assert run.status == 1
    assert "\nexit: INVALID" in run.words
    assert "Traceback" not in run.words
    assert run.console
    assert plain(guest).console.startswith(run.console)


def test_a_guest_that_qemu_alone_hangs_in_goes_on(image):
    runs = [under_trapline(image("long_reserved"), mask) for mask in ("none", "all")]
    assert_same(runs[1].console, runs[0].console)
    assert [run.status for run in runs] == [0, 0]
    assert re.search(rb"\nHASH \w+ TESTS \d+\n$", runs[0].console)


@pytest.mark.parametrize("mask", ["all", "all,!pf,!ud", "bp,de"])
def test_each_exception_is_recorded_once(mask, image, tmp_path):
    run = summed_up(image("count"), mask, tmp_path)
    forced = parse_mask(mask).mask
    told = {Vector[name.upper()]: int(count) for name, count in re.findall(r"(\w+)=(\d+)", run.console.decode())}
    assert len(told) == 7
    assert run.counts() == {vector: count for vector, count in told.items() if forced >> vector & 1}


def test_a_hostile_guest_harms_only_itself(image, plain, tmp_path):
    run = summed_up(image("hostile"), "all", tmp_path, "--isolate")
    assert_same(run.console, plain("hostile", "-nic", "none").console)
    assert run.console.endswith(b"ALIVE\n")
    assert run.summary["ending"] == "debug_exit"
    # Nothing is lost in the flood, although it fills the ring again and again.
    undefined = map(int, re.findall(rb"ud=(\d+)", run.console))
    refused = map(int, re.findall(rb"gp=(\d+)", run.console))
    assert run.counts() == {UD: sum(undefined), GP: sum(refused)}


@pytest.mark.parametrize(("mask", "isolation"), [("none", ()), ("all", ()), ("all", ("--isolate",))])
def test_guarded_ports_are_as_on_qemu_alone(mask, isolation, image, plain):
    run = under_trapline(image("ports"), mask, *isolation)
    assert_same(run.console, plain("ports").console)
    assert run.console.endswith(b"ALIVE\n")
    assert run.status == 0


@pytest.mark.parametrize("mask", ["none", "all"])
def test_a_guest_that_resets_its_machine_is_started_again(mask, image, plain):
    run = under_trapline(image("reset"), mask, "--reboot")
    assert_same(run.console, plain("reset").console)
    assert run.status == 0


@pytest.mark.parametrize("mask", ["none", "all"])
def test_a_guest_that_sleeps_wakes_up(mask, image, plain):
    run = under_trapline(image("sleep"), mask)
    assert run.console.count(b"awake") == 2, run.words
    assert_same(run.console, plain("sleep").console)
    assert (run.status, plain("sleep").status) == (0, 1)


def test_a_reset_after_it_woke_up_is_the_end(image, plain):
    run = under_trapline(image("sleep", ENDS_IN_RESET=1, TIMES=1), "all")
    assert run.status == 0
    assert "guest: reset after" in run.words
    assert run.console.count(b"awake") == 1
    assert plain("sleep").console.startswith(run.console.rpartition(b"#UD")[0])


@pytest.mark.parametrize(("isolation", "devices"), [((), ()), (("--isolate",), ("-nic", "none"))], ids=["", "isolated"])
def test_an_init_of_a_guest_that_has_its_own_smm_is_a_reset(isolation, devices, image, plain):
    run = under_trapline(image("smm", ENDS_IN_INIT=1), "all", *isolation)
    assert_same(run.console, plain("smm", *devices).console)
    assert run.status == 0
    assert "guest: reset after" in run.words


def test_without_reboot_a_reset_is_the_end(image, plain):
    run = under_trapline(image("reset"), "all")
    assert run.status == 0
    assert "guest: reset after" in run.words
    assert plain("reset").console.startswith(run.console)


@pytest.mark.parametrize("guest", CHAINS)
def test_a_shutdown_shows_what_led_to_it(guest, image, plain, tmp_path):
    run = summed_up(image(guest), "all", tmp_path)
    assert_same(run.console, plain(guest).console)
    assert run.status == run.summary["exit_code"] == 3
    assert run.summary["ending"] == "shutdown"
    last = run.summary["last"]
    chain = [(line["vector"], line["vectoring"] and line["vectoring"]["vector"]) for line in last]
    assert chain[-len(CHAINS[guest]) :] == CHAINS[guest]
    *before, combined, double_fault, end = [line["outcome"] for line in last]
    assert set(before) <= {"forwarded"}
    assert (combined, double_fault, end) == ("combined", "forwarded", "shutdown")
    assert last[-2]["error_code"] == 0
    assert [line["seq"] for line in last] == list(range(run.summary["recorded"]))[-64:]
    # The state is that of before the reset: the guest still stands where the first of the chain was raised.
    assert run.summary["crash"]["registers"]["rip"] == last[-1]["rip"] == last[-len(CHAINS[guest])]["rip"]


@pytest.mark.parametrize("guest", CHAINS)
def test_a_shutdown_is_noticed_with_nothing_forced(guest, image, plain, tmp_path):
    run = summed_up(image(guest), "none", tmp_path)
    assert_same(run.console, plain(guest).console)
    assert run.status == 3
    assert run.summary["last"] == []
    assert int(run.summary["crash"]["registers"]["rip"], 16)


def test_a_shutdown_is_told_in_words(image):
    run = under_trapline(image("shutdown2"), "all")
    assert run.status == 3
    report = run.words[run.words.index("triple fault") :].splitlines()
    assert [line.split()[0] for line in report[1:6]] == ["#UD", "#NP", "#GP", "#DF", "#NP"]
    assert "the gate of #UD" in report[2]
    assert report[2].endswith("while delivering #UD")
    assert report[5].endswith("while delivering #DF(0x0)  -> shutdown")
    assert report[6].startswith("at the shutdown  cpl 0")
