"""The fault matrix on one of two CPUs in this process, while the other one spins or raises exceptions, and on both."""

import re
import struct
import time
from collections import Counter

import pytest

from tests.acceptance.runs import LIMIT, assert_same, read_lines, summed_up
from tests.acceptance.test_in_process import IMAGE, MEMORY, PASSED
from tests.acceptance.test_kernel import UNDELIVERED
from trapline.arch import reset
from trapline.arch.vectors import FORCEABLE, Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, CS, DS, ESP, SS, Mem
from trapline.guests.boot import bare_entry
from trapline.guests.boot.raw import raw
from trapline.guests.recognise import recognise
from trapline.hypervisor.recording import Recording
from trapline.hypervisor.stop import StopReason
from trapline.hypervisor.vm import Vm
from trapline.machine.boot import Boot
from trapline.processors.unicorn.board import UnicornBoard
from trapline.processors.unicorn.processor import UnicornProcessor
from trapline.trace.columns import view
from trapline.trace.recorder import Recorder

START, OTHER = 0x18_0000, 0x7_0000
HANDLER, POINTER, IDT, COUNT = 0x100, 0x1F0, 0x200, 0x700
PICKED = {"BARE": 1, "SHORT": 1, "COMPARE": 1, "QUIET": 1}
SKIP = bytes.fromhex("5589e5834602025dcf")
"""`push bp; mov bp, sp; add word [bp + 2], 2; pop bp; iret`."""


def starting():
    """Return 32-bit code that starts CPU 1 at OTHER and then spins."""
    code = Assembler(32)
    for at, value in ((0x310, 1 << 24), (0x300, 0x4500), (0x300, 0x4600 | OTHER >> 12)):
        code.mov(Mem(None, 0xFEE0_0000 + at, size=32), value)
    code.label("spin")
    code.jmp("spin")
    return code.assemble(START)


def other(*, raises):
    """Return what is at OTHER: real mode code that spins, or that raises #UD and counts, with an IDT of its own."""
    code = Assembler(16)
    code.mov(AX, CS)
    code.mov(DS, AX)
    code.mov(SS, AX)
    code.mov(ESP, 0x800)
    code.lidt(Mem(None, POINTER))
    code.label("again")
    if raises:
        code.inc(Mem(None, COUNT, size=32))
        code.ud2()
    code.jmp("again")
    gate = struct.pack("<HH", HANDLER, OTHER >> 4)
    parts = {0: code.assemble(0), HANDLER: SKIP, POINTER: struct.pack("<HI", 0x3FF, OTHER + IDT)}
    return [(OTHER + at, data) for at, data in (*parts.items(), (IDT + 4 * Vector.UD, gate))]


@pytest.fixture(scope="module")
def matrix(image):
    """How the matrix starts in real mode, and on a machine with one CPU what it prints, and how much it raises."""
    boot, console = bare_entry(recognise(image("long", **PICKED)), memory=MEMORY, entry=IMAGE), bytearray()
    recorder = Recorder()
    with UnicornProcessor(boot, MEMORY, output=console.extend) as processor:
        vm = recorded(processor, None, boot.enter, recorder)
        assert vm.run(time.monotonic() + LIMIT).reason is StopReason.OFF
    assert console.startswith(b"COUNT ")
    return boot, bytes(console), recorder.tally.total


def recorded(processor, board, enter, recorder):
    processor.on_records(recorder.add)
    return Vm(processor, board=board, mask=FORCEABLE, enter=enter, recorders=(Recording(recorder.add),))


@pytest.mark.parametrize("raises", [False, True], ids=["the other spins", "the other raises #UD"])
@pytest.mark.parametrize("number", [0, 1])
def test_the_matrix_on_one_of_two_cpus(number, raises, matrix):
    boot, expected, raised = matrix
    started = raw(starting(), 32, START, MEMORY)
    loads = [*boot.loads, *started.loads, *other(raises=raises)]
    console, recorder = bytearray(), Recorder(keep=1_000_000)
    board = UnicornBoard(Boot("matrix", "the matrix", loads, started.enter), MEMORY, cpus=2, output=console.extend)
    with board.cpus[0] as first:
        vm = recorded(first, board, started.enter, recorder)
        vm.set_breakpoints(frozenset({OTHER}))
        assert vm.run(time.monotonic() + LIMIT).reason is StopReason.BREAKPOINT
        vm.set_breakpoints(frozenset())
        assert [vcpu.startup for vcpu in vm.vcpus] == [None, OTHER >> 12]
        for vcpu in vm.vcpus:
            reset.reset(vcpu.processor.vmcb, vcpu.processor.gprs, signature=vcpu.processor.signature)
            reset.start_up(vcpu.save, OTHER >> 12)
        boot.enter(vm.vcpus[number].save, vm.vcpus[number].processor.gprs)
        assert vm.run(time.monotonic() + LIMIT).reason is StopReason.OFF
        assert first.exit_status == PASSED
        assert bytes(console) == expected
        count = int.from_bytes(first.memory.read(OTHER + COUNT, 4), "little")
    vcpus = view(recorder.store.records())["vcpu"]
    assert (vcpus == number).sum() == raised
    assert count - 1 <= (vcpus != number).sum() <= count
    assert raises == (count > 100)


@pytest.mark.parametrize("mask", ["none", "all"])
def test_the_matrix_on_both_at_once(mask, image, tmp_path):
    options = ("--cpus", "2", "--entry-mode", "16")
    alone, both = (
        summed_up(image("long", CPUS=cpus, **PICKED), mask, tmp_path, *options, processor="unicorn") for cpus in (1, 3)
    )
    assert re.fullmatch(rb"COUNT .*\nHASH [0-9a-f]{16} TESTS \d+\n", alone.console)
    assert_same(both.console, 2 * alone.console)
    assert both.counts() == {vector: 2 * count for vector, count in alone.counts().items()}
    assert (sum(alone.counts().values()) > 100) == (mask == "all")


def test_a_kernel_counts_what_is_recorded_of_each_cpu(kernel, tmp_path):
    image, output = kernel(SMP=1, WATCHPOINT=0, RF=0).image, tmp_path / "records.jsonl"
    runs = {
        mask: summed_up(image, mask, tmp_path, "--cpus", "2", "-o", str(output), processor="unicorn")
        for mask in ("none", "all")
    }
    counts = {
        mask: re.search(rb"^second: 6=(\d+) 13=(\d+) 14=(\d+)\n", run.console, re.M) for mask, run in runs.items()
    }
    without = [run.console.replace(counts[mask][0], b"") for mask, run in runs.items()]
    assert_same(*without)
    assert [run.status for run in runs.values()] == [0, 0]
    records = Counter((record["vcpu"], record["vector"]) for record in read_lines(output))
    told = dict(zip((Vector.UD, Vector.GP, Vector.PF), map(int, counts["all"].groups()), strict=True))
    assert {vector: records[1, vector] for vector in told} == told
    assert min(told.values()) > 10
    first = {int(vector): int(count) for vector, count in re.findall(rb" (\d+)=(\d+)", without[1])}
    assert {vector: records[0, vector] for vector in first} == {**first, Vector.PF: first[Vector.PF] + UNDELIVERED}
