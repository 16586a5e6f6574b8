"""Guests in this process see the same whatever is forced, and the same as on QEMU alone but for what is named."""

import functools
import time
from collections import Counter
from typing import NamedTuple

import pytest

from tests.acceptance.departures import OF_QEMU, OF_UNICORN, blocks, differences, explain
from tests.acceptance.runs import LIMIT, assert_same, on_qemu_alone
from tests.acceptance.test_matrix import CHAINS
from trapline.arch.events import decode
from trapline.arch.mask import parse_mask
from trapline.arch.vectors import Vector
from trapline.guests.boot import Entry, bare_entry
from trapline.guests.recognise import recognise
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import Stop, StopReason
from trapline.hypervisor.vm import Vm
from trapline.processors.qemu.launch import facts_of
from trapline.processors.qemu.programs import find_qemu
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.trace.columns import view
from trapline.trace.recorder import Recorder

MEMORY = 32 << 20
IMAGE = Entry(mode=16, address=0x7C00)
MATRIX = ("long", "pm32", "pm16", "real")
PASSED = 1
"""What the debug exit port makes of the guest's 0."""


class Run(NamedTuple):
    """What a finished run left."""

    stop: Stop
    status: int | None
    console: bytes
    recorder: Recorder


@pytest.fixture(scope="module")
def run(image):
    """Return a function that runs a guest built for a bare machine, once for each mask."""

    @functools.cache
    def run(name, exceptions, *, sets_rf=True, **defines):
        console, recorder = bytearray(), Recorder()
        boot = bare_entry(recognise(image(name, BARE=1, **defines)), memory=MEMORY, entry=IMAGE)
        with UnicornProcessor(boot, MEMORY, output=console.extend, sets_rf=sets_rf) as processor:
            mask = parse_mask(exceptions).mask
            vm = Vm(processor, mask=mask, enter=boot.enter, recorders=(Recording(recorder.add),))
            processor.on_records(recorder.add)
            stop = vm.run(time.monotonic() + LIMIT)
            if stop.reason is StopReason.LEAVING:
                stop = vm.run(time.monotonic() + LIMIT)
            return Run(stop, processor.exit_status, bytes(console), recorder)

    return run


def counts(run):
    return {row.vector: row.count for row in run.recorder.tally.rows()}


def chain_of(run):
    """Return the vectors of the last exceptions, each with that of what was being delivered."""
    records = view(run.recorder.last())
    events = [decode(int(word)) for word in records["exit_int_info"]]
    return [
        (int(vector), None if event is None else event.vector)
        for vector, event in zip(records["vector"], events, strict=True)
    ]


def assert_same_sums(run, guest, forced, *, quiet):
    """Compare what was forced with nothing forced, by the sums of both at the end; where they differ, line by line."""
    none = run(guest, "none", sets_rf=False, COMPARE=1, QUIET=1)
    ours = run(guest, forced, sets_rf=False, COMPARE=1, QUIET=int(quiet))
    sums = [each.console.splitlines()[-2:] for each in (none, ours)]
    assert [line.split()[0] for line in sums[0]] == [b"COUNT", b"HASH"]
    if sums[0] != sums[1]:
        assert_same(*(run(guest, mask, sets_rf=False, COMPARE=1, QUIET=0).console for mask in (forced, "none")))
    assert sums[0] == sums[1]
    return none, ours


@pytest.mark.parametrize("guest", MATRIX)
def test_the_guest_sees_the_same_with_everything_forced(guest, run):
    none, all_ = assert_same_sums(run, guest, "all", quiet=False)  # the other tests compare all lines of it
    assert [each.status for each in (none, all_)] == [PASSED, PASSED]
    assert counts(none) == {}
    assert sum(counts(all_).values()) > 100


@pytest.fixture
def _departures_are_listed():
    """Skip where plain QEMU is not the one whose departures are listed: its error codes tell."""
    if facts_of(find_qemu()).plain_gate_codes:
        pytest.skip("the departures that are listed are those of QEMU 7.2")


@pytest.mark.usefixtures("_departures_are_listed")
@pytest.mark.parametrize("guest", MATRIX)
def test_the_guest_sees_what_it_sees_on_qemu_alone(guest, run, plain):
    ours = run(guest, "all", sets_rf=False, COMPARE=1, QUIET=0).console
    expected = plain(guest, COMPARE=1)
    assert expected.status == PASSED
    found = {block.name: (explain(block), block) for block in differences(expected.console, ours)}
    assert [block for why, block in found.values() if why is None] == []
    assert len(found) < len(blocks(ours)) / 4


@pytest.mark.usefixtures("_departures_are_listed")
def test_each_departure_is_seen(run, plain):
    """What explains nothing any more must not stay in the list."""
    found = Counter()
    for guest in ("long", "pm16"):
        pair = plain(guest, COMPARE=1).console, run(guest, "all", sets_rf=False, COMPARE=1, QUIET=0).console
        found.update(explain(block) for block in differences(*pair))
    assert set(found) == {*OF_QEMU, *OF_UNICORN}


@pytest.mark.parametrize(
    ("guest", "mask"),
    [("real", mask) for mask in ("all", "all,!pf", "0x1", "0x40", "0x2000", "0x4001")] + [("count", "all,!ud")],
)
def test_a_part_of_the_exceptions_forced(guest, mask, run):
    assert_same(run(guest, mask).console, run(guest, "none").console)
    assert run(guest, mask).status == PASSED


def test_partial_masks_in_long_mode(run):
    assert_same_sums(run, "long", "df,gp,ss", quiet=True)


def test_a_reset_is_the_end(run):
    """The rest of that guest needs the shadow RAM of a PC's BIOS."""
    ended = run("reset", "all")
    assert ended.stop.reason is StopReason.RESET
    assert ended.console == b"first boot\n"


@pytest.mark.parametrize("guest", ["count", "cpuid"])
def test_counting_and_cpuid(guest, run):
    assert_same(run(guest, "all").console, run(guest, "none").console)
    assert run(guest, "all").status == PASSED


def test_each_exception_is_recorded_once(run, image):
    plain = on_qemu_alone(image("count"))
    assert run("count", "all").console == plain.console
    told = dict(word.split("=") for word in plain.console.decode().split()[1:])
    assert counts(run("count", "all")) == {Vector[name.upper()]: int(count) for name, count in told.items()}


@pytest.mark.parametrize("mask", ["none", "all", "ud,gp,df", "all,!df"])
@pytest.mark.parametrize("guest", CHAINS)
def test_a_shutdown_shows_what_led_to_it(guest, mask, run):
    ended = run(guest, mask)
    assert ended.stop.reason is StopReason.SHUTDOWN
    assert_same(ended.console, run(guest, "none").console)
    chain = chain_of(ended)
    if mask == "all":
        assert chain == CHAINS[guest]
    forced = parse_mask(mask).mask
    assert [vector for vector, _ in chain] == [vector for vector, _ in CHAINS[guest] if forced >> vector & 1]
