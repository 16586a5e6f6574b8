"""Guests with two CPUs on QEMU: every exception of each is seen, and the guest goes on as on QEMU alone."""

import os
import re
import signal
import struct
from collections import Counter

import pytest

from tests.acceptance.runs import (
    LIMIT,
    assert_same,
    command,
    on_qemu_alone,
    read_lines,
    summed_up,
    under_trapline,
    wait_for,
)
from tests.acceptance.several import ICR, ICR2, INIT, OTHERS, SKIP, STARTUP, multiboot, raising
from trapline import FORWARD, STOP, Machine, StopReason
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, DS, EAX, ECX, EDX, SS, Mem
from trapline.guests.samples import SAMPLES

OTHER, HANDLER = 0x8000, 0x8100
STARTS, FAULTS = Mem(None, 0x9000, size=32), Mem(None, 0x9004, size=32)
TIMES = 8
_CAUSES = {
    "ap-trampoline": None,  # that one is right
    "ap-gdt-high": r"GDTR has base 0x0 and limit 0x0",
    "ap-no-nxe": r"EFER\.NXE is clear",
    "ap-stack-shared": r"The stack pointers of CPU 0, .* and of CPU 1",
    "ap-wrong-page": r"startup IPI with the vector 0x20, so at 0x20000",
}


def other(*, halts):
    """Return the other CPU's code: it counts, raises #UD, whose handler counts, and spins or halts for good."""
    code = Assembler(16)
    code.mov(AX, 0)
    code.mov(DS, AX)
    code.mov(SS, AX)
    code.mov(operands.ESP, 0x7000)
    code.inc(STARTS)
    code.ud2()
    handler = Assembler(16)
    handler.inc(FAULTS)
    handler.label("stay")
    if halts:
        handler.hlt()
    handler.jmp("stay")
    return [
        (4 * Vector.UD, struct.pack("<HH", HANDLER, 0)),
        (OTHER, code.assemble(OTHER)),
        (HANDLER, handler.assemble(HANDLER)),
    ]


def again_and_again(code):
    """Reset and start the other CPU, whatever it is doing, and end with what it has counted in the exit status."""
    for counter in (STARTS, FAULTS):
        code.mov(counter, 0)
    code.mov(ECX, 0)
    code.label("next")
    code.inc(ECX)
    for register, value in ((ICR2, 1 << 24), (ICR, INIT), (ICR, STARTUP | OTHER >> 12)):
        code.mov(register, value)
    code.label("wait")
    code.pause()
    code.cmp(FAULTS, ECX)
    code.jne("wait")
    code.cmp(ECX, TIMES)
    code.jne("next")
    code.mov(EAX, STARTS)
    code.mov(EDX, 0xF4)
    code.out(operands.DX, operands.AL)
    code.label("stay")
    code.jmp("stay")


@pytest.mark.parametrize("halts", [False, True], ids=["it spins", "it halts"])
def test_a_cpu_is_reset_whatever_it_does(halts, tmp_path):
    image, output = tmp_path / "image.bin", tmp_path / "records.jsonl"
    image.write_bytes(multiboot(again_and_again, other(halts=halts)))
    assert on_qemu_alone(image, "-smp", "2").status == 2 * TIMES + 1
    for mask, recorded in (("none", []), ("all", [(1, Vector.UD)] * TIMES)):
        run = summed_up(image, mask, tmp_path, "-o", str(output), machine=("-smp", "2"))
        assert run.summary["debug_exit"] == 2 * TIMES + 1
        assert [(record["vcpu"], record["vector"]) for record in read_lines(output)] == recorded


def test_a_cpu_that_only_the_firmware_has_started(tmp_path):
    def halting(code):
        code.cli()
        code.label("stay")
        code.hlt()
        code.jmp("stay")

    image = tmp_path / "image.bin"
    image.write_bytes(multiboot(halting, []))
    run = under_trapline(image, "all", "--cpus", "2")
    assert "guest: halted" in run.words
    told = [line for line in run.words.splitlines() if "CPU 1" in line]
    assert told == ["CPU 1 waits in the firmware: the guest has not started it."]


def test_a_kernel_counts_what_is_recorded_of_each_cpu(kernel, tmp_path):
    image, output = kernel(SMP=1, WATCHPOINT=0, RF=0).image, tmp_path / "records.jsonl"
    runs = [on_qemu_alone(image, "-smp", "2")]
    runs += [summed_up(image, mask, tmp_path, "--cpus", "2", "-o", str(output)) for mask in ("none", "all")]
    told = re.compile(rb"^second: 6=(\d+) 13=(\d+) 14=(\d+)\n", re.M)
    plain, *ours = (told.sub(b"", run.console) for run in runs)
    for console in ours:
        assert_same(console, plain)
    counts = dict(zip((Vector.UD, Vector.GP, Vector.PF), map(int, told.search(runs[-1].console).groups()), strict=True))
    records = Counter((record["vcpu"], record["vector"]) for record in read_lines(output))
    assert {vector: records[1, vector] for vector in counts} == counts
    assert min(counts.values()) > 10


@pytest.mark.parametrize("sample", [row for row in SAMPLES if row.cpus > 1], ids=lambda sample: sample.name)
def test_what_is_wrong_with_the_start_of_a_second_cpu_is_told(sample, tmp_path):
    run = summed_up(f"sample:{sample.name}", "all", tmp_path)
    cause = _CAUSES[sample.name]
    assert cause is None or re.search(cause, str(run.summary)), run.summary
    assert set(run.counts()) == set(sample.vectors)


def counting(counter):
    """Return real mode code that counts and raises #UD again and again; its handler goes on after the UD2."""
    code = Assembler(16)
    code.mov(AX, 0)
    code.mov(DS, AX)
    code.mov(SS, AX)
    code.mov(operands.ESP, counter)
    code.label("again")
    code.inc(Mem(None, counter, size=32))
    code.ud2()
    code.jmp("again")
    return code


def starting_two(code):
    """Start CPU 1 at its page and CPU 2 at its own, and spin."""
    code.mov(ICR, OTHERS | INIT)
    for number, page in ((1, 0x8), (2, 0xA)):
        code.mov(ICR2, number << 24)
        code.mov(ICR, STARTUP | page)
    code.label("spin")
    code.jmp("spin")


def test_cpus_that_raise_at_once_stop_together(tmp_path):
    image, counters = tmp_path / "image.bin", {1: 0x9000, 2: 0xB000}
    parts = [(4 * Vector.UD, struct.pack("<HH", HANDLER, 0)), (HANDLER, SKIP)]
    parts += [(at - 0x1000, counting(at).assemble(at - 0x1000)) for at in counters.values()]
    parts += [(at, bytes(4)) for at in counters.values()]
    image.write_bytes(multiboot(starting_two, parts))
    seen = Counter()
    with Machine(image, cpus=3, processor="qemu", exceptions="ud") as machine:

        @machine.on(Vector.UD)
        def count(reported):
            seen[reported.vcpu] += 1
            return STOP if seen.total() % 40 == 0 else FORWARD

        def counted():
            return {number: int.from_bytes(machine.memory.read(at, 4), "little") for number, at in counters.items()}

        for _ in range(4):
            assert machine.run(timeout=LIMIT).reason is StopReason.EXCEPTION
            counts = counted()
            assert counted() == counts
            assert all(0 <= counts[number] - seen[number] <= 1 for number in counters)
        machine.set_exceptions("none")
        before, total = counted(), seen.total()
        assert machine.run(timeout=0.5).reason is StopReason.TIMEOUT
        machine.interrupt()
        assert machine.run(timeout=LIMIT).reason is StopReason.INTERRUPTED
        counts = counted()
        assert all(counts[number] > before[number] for number in counters)
        assert seen.total() == total
        machine.set_exceptions("ud")
        assert machine.run(timeout=LIMIT).reason is StopReason.EXCEPTION


def test_a_cpu_that_is_stopped_again_and_again_takes_its_own_nmis(tmp_path):
    """The stops are NMIs, too. The first of its own may come before it has taken its INIT."""
    image, sent, taken = tmp_path / "image.bin", 0x9000, 0x9004

    def sending(code):
        """Start CPU 1, and send it an NMI whenever it has taken the last one."""
        for register, value in ((ICR2, 1 << 24), (ICR, INIT), (ICR, STARTUP | OTHER >> 12)):
            code.mov(register, value)
        code.label("next")
        code.mov(ECX, Mem(None, sent))
        code.cmp(Mem(None, taken), ECX)
        code.jne("next")
        code.inc(Mem(None, sent, size=32))
        code.mov(ICR, 0x4400)
        code.jmp("next")

    waits, handler = Assembler(16), Assembler(16)
    for register in (DS, SS):
        waits.mov(register, AX)  # 0
    waits.mov(operands.ESP, 0x7000)
    waits.ud2()
    waits.label("stay")
    waits.jmp("stay")
    handler.inc(Mem(None, taken, size=32))
    handler.iret()
    vectors = {Vector.NMI: HANDLER, Vector.UD: HANDLER + 0x40}
    parts = [(4 * vector, struct.pack("<HH", at, 0)) for vector, at in vectors.items()]
    parts += [(HANDLER + 0x40, SKIP), (sent, bytes(8))]
    parts += [(OTHER, waits.assemble(OTHER)), (HANDLER, handler.assemble(HANDLER))]
    image.write_bytes(multiboot(sending, parts))
    with Machine(image, cpus=2, processor="qemu", exceptions="ud") as machine:
        machine.on(Vector.UD)(lambda _: STOP)
        assert machine.run(timeout=LIMIT).reason is StopReason.EXCEPTION
        for _ in range(300):
            machine.interrupt()
            assert machine.run(timeout=LIMIT).reason is StopReason.INTERRUPTED
            assert machine.run(timeout=0.02).reason is StopReason.TIMEOUT
            counts = [int.from_bytes(machine.memory.read(at, 4), "little") for at in (sent, taken)]
            assert counts[0] - counts[1] in (0, 1)
            if counts[1] > 20:
                break
        else:
            pytest.fail(f"it took no more than {counts[1]} NMIs")


@pytest.mark.parametrize("mask", ["none", "all"])
@pytest.mark.parametrize("on", [2, 3], ids=["CPU 0 spins", "both at once"])
def test_the_matrix_on_the_second_cpu(on, mask, image, plain, tmp_path):
    output = tmp_path / "records.jsonl"
    alone = plain("long", CPUS=1, QUIET=1).console
    expected = plain("long", "-smp", "2", CPUS=on, QUIET=1)
    first = b"".join(alone.splitlines(keepends=True)[:2])
    assert re.fullmatch(rb"COUNT .*\nHASH [0-9a-f]{16} TESTS \d{4}\n", first)
    assert_same(expected.console, alone if on == 2 else 2 * first)
    run = under_trapline(image("long", CPUS=on, QUIET=1), mask, "--cpus", "2", "-o", str(output))
    assert_same(run.console, expected.console)
    assert (run.status, expected.status) == (0, 1)
    counts = [Counter(), Counter()]
    for record in read_lines(output):
        counts[record["vcpu"]][record["vector"]] += 1
    assert counts[0] == (counts[1] if on == 3 else Counter())
    assert (counts[1].total() > 1000) == (mask == "all")


ENDS = {
    "QEMU is killed": (True, signal.SIGKILL, 1),
    "trapline is killed": (False, signal.SIGKILL, -signal.SIGKILL),
    "trapline is told to end": (False, signal.SIGTERM, 143),
    "Ctrl-C": (False, signal.SIGINT, 130),
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_of_four_cpus(end, start, tmp_path):
    of_qemu, number, status = ENDS[end]
    image, output = tmp_path / "image.bin", tmp_path / "records.jsonl"
    image.write_bytes(raising(4, 0, wait=100_000))
    run = start(command(image, "all", "-o", str(output), "--cpus", "4"))
    wait_for(lambda: output.exists() and {record["vcpu"] for record in read_lines(output)} == {0, 1, 2, 3}, "records")
    qemu, before = run.qemu, len(read_lines(output))
    os.kill(qemu if of_qemu else run.process.pid, number)
    assert run.wait() == status
    assert "Traceback" not in run.words
    run.assert_nothing_is_left(qemu)
    counted = Counter()
    for record in read_lines(output):
        counted[record["vcpu"]] += 1
        assert int(record["rcx"], 16) == counted[record["vcpu"]]
    assert counted.total() >= before
