"""The fault-matrix guests end with the same hash, however often they are stopped on the way.

Their records hold DR6, DR7, the flags that were pushed and the code of the trigger, as the guest itself reads them.
"""

import contextlib
import functools
import re
import struct
import time
from collections import Counter

import pytest

from tests.acceptance.runs import LIMIT, PROCESSORS, assert_same, on_qemu_alone
from tests.programs.build import labels
from trapline.arch.registers import CR0, EFER, RFLAGS
from trapline.guests.boot import Entry, bare_entry
from trapline.guests.qemu import qemu_options
from trapline.guests.recognise import recognise
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.linear import code_address
from trapline.machine.processor import Watchpoint
from trapline.processors.qemu.launch import open_qemu
from trapline.processors.unicorn.processor import UnicornProcessor

MEMORY = 32 << 20
IMAGE = Entry(mode=16, address=0x7C00)
HITS, STEPS = 25, 250
"""So many hits of a watchpoint, and so many steps, in each turn; as many hits of breakpoints in each mode."""
TURNS = (8, pytest.param(40, marks=pytest.mark.soak))
HASH = Watchpoint(0x1600, 4, False)
"""`hash_lo` of inc/report.inc."""
ROW = struct.Struct("<6I")
"""A trigger of inc/table.inc: code, at, name, prepare, vector, flags."""
V86 = 16
"""A flag of a trigger (prot/harness.inc): it runs in v8086 mode."""
STAGES = {
    "real": (("real", ()),),
    "pm32": (("protected", ()), ("v86", ("run_one.v86",)), *(("v86", ("run_table", "run_one.v86")),) * 3),
    "long": (("long", ()),),
}
"""Where a guest is stopped: a mode, and labels to run to before.

The table of triggers is run four times, each time with some 400 in v8086 mode. Before them no breakpoint is set
in the page of the triggers: QEMU executes such a page one instruction at a time, and so takes an NMI sooner.
"""
INTERRUPTS = re.compile(b"irq|sti|ipi|nmi|ppr|timer|cr8")
"""In the names of triggers before which an interrupt is pending."""
HANDLERS = {"real": ("on_event", "report")}
"""More breakpoints where there are not a thousand triggers to run."""


def mode_of(save):
    """Return the mode that the CPU is in, by the names of the issue."""
    if not save.cr0 & CR0.PE:
        return "real"
    if save.rflags & RFLAGS.VM:
        return "v86"
    return "long" if save.efer & EFER.LMA else "protected"


def breakpoints(image, mode):
    """Return addresses at which the CPU is in a mode: where triggers begin, and their instructions that are to fault.

    Steps hold interrupts back (`hypervisor.step`), so no step begins where an interrupt is pending.
    """
    names, data = labels(image), image.read_bytes()
    table = data[names["triggers_start"] - IMAGE.address : names["triggers_end"] - IMAGE.address]
    found = {names[name] for name in HANDLERS.get(mode, ())}
    for row in ROW.iter_unpack(table):
        name = data[row[2] - IMAGE.address :].partition(b"\0")[0]
        in_mode = mode not in ("protected", "v86") or (mode == "v86") == bool(row[5] & V86)
        if in_mode and not INTERRUPTS.search(name):
            found.update(row[:2])
    return frozenset(found)


@contextlib.contextmanager
def machine(processor, image, file):
    """Switch a machine on whose console is the file."""
    with contextlib.ExitStack() as closing:
        if processor == "qemu":
            options = qemu_options(recognise(image))
            opened, enter = open_qemu(guest=options, memory=MEMORY, serial=["-serial", f"file:{file}"]), None
        else:
            boot = bare_entry(recognise(image), memory=MEMORY, entry=IMAGE)
            console = closing.enter_context(file.open("wb"))
            opened, enter = UnicornProcessor(boot, MEMORY, output=console.write), boot.enter
        yield Vm(closing.enter_context(opened), mask=0, enter=enter)


@pytest.fixture(scope="module")
def guest(image):
    """Return a function that builds a guest for a processor: it prints nothing but its counts and its hash."""

    def guest(name, processor):
        return image(name, QUIET=1, **({} if processor == "qemu" else {"BARE": 1}))

    return guest


@pytest.fixture(scope="module")
def undisturbed(guest, tmp_path_factory):
    """Return a function that runs a guest without a stop, on QEMU alone or in this process, and returns its console."""
    file = tmp_path_factory.mktemp("undisturbed") / "console.txt"

    @functools.cache
    def undisturbed(name, processor):
        image = guest(name, processor)
        if processor == "qemu":
            return on_qemu_alone(image).console
        with machine(processor, image, file) as vm:
            assert vm.run(time.monotonic() + LIMIT).reason is StopReason.OFF
        return file.read_bytes()

    return undisturbed


def disturb(vm, image, stages, turns):
    """Stop the guest at breakpoints, at a watchpoint and by steps; return how often in which mode."""
    deadline = time.monotonic() + 2 * LIMIT
    names = labels(image)
    parts = Counter(mode for mode, _ in stages)
    stops = Counter()

    def stop(expected, execute, times):
        for _ in range(times):
            stopped = execute(deadline)
            assert stopped.reason is expected
            stops[expected, mode_of(vm.vcpu.save)] += 1

    for mode, before in stages:
        for label in before:
            vm.set_breakpoints(frozenset({names[label]}))
            assert vm.run(deadline).reason is StopReason.BREAKPOINT
            vm.set_breakpoints(frozenset())
        places = breakpoints(image, mode)
        rounds = turns // len(parts) // parts[mode]
        for _ in range(rounds):
            vm.set_watchpoints((HASH,))
            stop(StopReason.WATCHPOINT, vm.run, HITS)
            vm.set_watchpoints(())
            vm.set_breakpoints(places)
            stop(StopReason.BREAKPOINT, vm.run, HITS * turns // rounds // parts[mode])
            assert code_address(vm.vcpu.save) in places
            stop(StopReason.STEP, vm.step, STEPS)
            vm.set_breakpoints(frozenset())
    assert vm.run(deadline).reason is StopReason.OFF
    return stops


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("turns", TURNS)
def test_the_hash_is_the_same(turns, processor, name, guest, undisturbed, tmp_path):
    image = guest(name, processor)
    file = tmp_path / "console.txt"
    with machine(processor, image, file) as vm:
        stops = disturb(vm, image, STAGES[name], turns)
    assert_same(file.read_bytes(), undisturbed(name, processor))
    assert b"\nHASH " in file.read_bytes()
    assert all(stops[StopReason.BREAKPOINT, mode] >= HITS * turns for mode, _ in STAGES[name])
    total = Counter(reason for reason, _ in stops.elements())
    assert (total[StopReason.WATCHPOINT], total[StopReason.STEP]) == (HITS * turns, STEPS * turns)
