"""A kernel that is stopped hundreds of times by breakpoints and watchpoints prints what it prints on QEMU alone."""

import collections
import subprocess
import time

import pytest

from tests.acceptance.runs import LIMIT, on_qemu_alone
from tests.acceptance.test_kernel import without
from trapline.arch.vectors import FORCEABLE
from trapline.guests.qemu import qemu_options
from trapline.guests.recognise import recognise
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.linear import code_address, read_linear
from trapline.machine.processor import Outcome, Watchpoint
from trapline.processors.qemu.launch import open_qemu

pytestmark = pytest.mark.slow

ENOUGH = 300
"""Hits of watchpoints; each costs milliseconds."""
TASKS, FRAME = 3, 40
"""What the CPU pushes when it comes from user mode is 40 bytes, at the top of each task's stack."""


class Stopped:
    """A processor whose hits are counted and passed below the hypervisor."""

    def __init__(self, processor, breakpoints, watchpoints):
        self._processor = processor
        self._stops = breakpoints, watchpoints
        self.hits = collections.Counter()

    def __getattr__(self, name):
        return getattr(self._processor, name)

    def run(self, deadline):
        while True:
            outcome = self._processor.run(deadline)
            if outcome is Outcome.BREAKPOINT:
                self._breakpoint()
            elif outcome is Outcome.WATCHPOINT:
                self.hits[self._processor.hit] += 1
                if self.hits.total() == ENOUGH:
                    self._processor.set_watchpoints(())
            else:
                if outcome is Outcome.RESET:
                    self._processor.set_breakpoints(self._stops[0])
                    self._processor.set_watchpoints(self._stops[1])
                return outcome

    def _breakpoint(self):
        """Stop at the entry of a function, then where it returns to, and so on."""
        save, memory = self._processor.vmcb.save, self._processor.memory
        address = code_address(save)
        self.hits[address] += 1
        if address in self._stops[0]:
            back = int.from_bytes(read_linear(save, memory, save.rsp, 8), "little")
            self._processor.set_breakpoints(frozenset((back,)))
        else:
            self._processor.set_breakpoints(self._stops[0])


@pytest.fixture(scope="module")
def built(kernel):
    return kernel(**without("qemu"))


@pytest.fixture(scope="module")
def symbols(built):
    """Addresses and sizes."""
    listed = subprocess.run(["nm", "--print-size", built.symbols], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {row[3]: (int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4}


@pytest.fixture(scope="module")
def plain(built):
    return on_qemu_alone(built.image).console


@pytest.fixture
def stopped(built, tmp_path, plain):
    """Return a function that runs the kernel to its end, compares its console, and returns the hits."""

    def stopped(mask, breakpoints=frozenset(), watchpoints=()):
        console = tmp_path / "console.txt"
        with open_qemu(
            guest=qemu_options(recognise(built.image)),
            memory=128 << 20,
            serial=["-serial", f"file:{console}"],
        ) as processor:
            watched = Stopped(processor, breakpoints, watchpoints)
            stop = Vm(watched, mask=mask).run(time.monotonic() + LIMIT)
        assert stop.reason is StopReason.OFF
        assert console.read_bytes() == plain
        return watched.hits

    return stopped


@pytest.mark.parametrize("mask", [0, FORCEABLE], ids=["none", "all"])
def test_breakpoints_in_functions_that_exceptions_and_the_timer_enter(stopped, symbols, mask):
    places = frozenset(symbols[name][0] for name in ("trap", "yield"))
    hits = stopped(mask, places)
    assert all(hits[place] > 5 for place in places)
    assert hits.total() == 2 * sum(hits[place] for place in places)


@pytest.mark.parametrize("mask", [0, FORCEABLE], ids=["none", "all"])
def test_watchpoints_where_the_cpu_pushes(stopped, symbols, mask):
    """And in the tables that it reads: it loses no event."""
    start, size = symbols["tasks"]
    tops = [start + size // TASKS * number for number in range(1, TASKS + 1)]
    frames = tuple(Watchpoint(top - FRAME, FRAME, False) for top in tops)
    tables = tuple(Watchpoint(*symbols[name], False) for name in ("tss", "gdt"))
    hits = stopped(mask, watchpoints=frames + tables)
    assert hits.total() == ENOUGH
