"""Breakpoints, watchpoints and steps with several CPUs on QEMU: each hit once, and the guest ends as without them."""

import contextlib
import struct
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from tests.acceptance.runs import LIMIT, QEMU, assert_same, on_qemu_alone
from tests.acceptance.several import (
    ALONE,
    BOTH,
    FIRST,
    HANDLER,
    HANDLER_32,
    ICR,
    ICR2,
    INIT,
    LOADED,
    OTHER,
    SECOND,
    SKIP,
    STARTUP,
    VALUE,
    calling,
    multiboot,
    raising,
)
from tests.acceptance.software import LINUX_ON_FOUR
from tests.acceptance.test_steps import HASH, breakpoints
from tools import testguests
from trapline import Machine, StopReason
from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AL, AX, DS, DX, EAX, ECX, EDX, ESP, Mem
from trapline.debugger.target import Target
from trapline.processors.qemu.launch import find_qemu

SIZES = [30, pytest.param(200, marks=pytest.mark.soak)]
TURNS = [2, pytest.param(20, marks=pytest.mark.soak)]
LINKED_AT = 0xFFFF_FFFF_8100_0000
"""Where Linux has its code without KASLR."""
WORD = Mem(None, VALUE, size=32)
NOP, RET, UD2 = b"\x90", b"\xc3", b"\x0f\x0b"
ONE_THREAD = """#!{python}
import os, sys
words = sys.argv[1:]
if "accel=tcg" in words:
    at = words.index("accel=tcg")
    words[at - 1 : at + 1] = ["-accel", "tcg,thread=single"]
os.execv({qemu!r}, [{qemu!r}, *words])
"""
"""A QEMU that executes all CPUs in one thread."""


@pytest.fixture(params=["a thread for each", "one thread", "isolated"])
def options(request, tmp_path):
    """The keywords of a `Machine` with two CPUs."""
    keywords = {"cpus": 2, "processor": "qemu", "isolate": request.param == "isolated"}
    if request.param == "one thread":
        program = tmp_path / QEMU
        program.write_text(ONE_THREAD.format(python=sys.executable, qemu=find_qemu(QEMU)))
        program.chmod(0o755)
        keywords["qemu"] = str(program)
    return keywords


@pytest.fixture
def machine(options, tmp_path):
    """Return a function that switches on a guest in which both CPUs call functions (`calling`)."""

    def machine(times, **functions):
        image = tmp_path / "image.bin"
        image.write_bytes(calling(times, **functions))
        machine.image = image
        return Machine(image, **{"exceptions": "none", **options})

    return machine


def stops_of(machine, reason):
    """Run until the end, and yield each stop, which must have one reason."""
    while (stop := machine.run(timeout=LIMIT)).reason is reason:
        yield stop
    assert stop.reason is StopReason.OFF


def value_in(machine):
    return int.from_bytes(machine.memory.read(VALUE, 4), "little")


def increment(*, lock=b"\xf0"):
    """INC of VALUE, in 32-bit and in 16-bit code."""
    return {32: lock + b"\xff\x05" + struct.pack("<I", VALUE), 16: lock + b"\x66\xff\x06" + struct.pack("<H", VALUE)}


def status(value):
    """Return how QEMU ends when a guest writes a value to its debug exit."""
    return (2 * value + 1) & 0xFF


@pytest.mark.parametrize("times", SIZES)
def test_each_hit_of_code_that_both_execute(machine, times):
    code = increment()
    with machine(times, both=NOP + NOP + RET, first=code[32] + RET, second=code[16] + RET) as guest:
        guest.breakpoints.add(BOTH + 1)
        hits = Counter()
        for stop in stops_of(guest, StopReason.BREAKPOINT):
            cpu = stop.cpu
            assert (cpu.address, cpu.registers.rcx) == (BOTH + 1, times - hits[cpu.number])
            hits[cpu.number] += 1
        assert hits == {0: times, 1: times}
        assert guest.session.processor.exit_status == status(2 * times)
    assert on_qemu_alone(machine.image, "-smp", "2").status == status(2 * times)


def test_a_cpu_is_stepped_while_it_starts_another_one(options, tmp_path):
    def start(code):
        for register, value in ((ICR2, 1 << 24), (ICR, INIT), (ICR, STARTUP | OTHER >> 12)):
            code.mov(register, value)
        code.label("wait")
        code.pause()
        code.cmp(WORD, 0)
        code.je("wait")
        code.mov(EAX, WORD)
        code.mov(EDX, 0xF4)
        code.out(DX, AL)

    image, other = tmp_path / "image.bin", Assembler(16)
    other.mov(AX, 0)
    other.mov(DS, AX)
    other.mov(WORD, 5)
    other.hlt()
    image.write_bytes(multiboot(start, [(VALUE, bytes(4)), (OTHER, other.assemble(0))]))
    with Machine(image, **{"exceptions": "none", **options}) as guest:
        target = Target(guest)
        target.run_to(LOADED + 32, timeout=LIMIT)
        while "0xfee00310" not in target.cpu.disassemble()[0].text:
            assert target.step(timeout=LIMIT).reason is StopReason.STEP
        after = target.cpu.address + 10
        target.step()
        assert target.step(timeout=LIMIT).stopped.detail == ""
        assert target.cpu.address == after + 10, "the INIT is sent"
        target.select(1)
        assert target.step(timeout=LIMIT).stopped.detail == "CPU 1 waits for a startup IPI"
        for executed in range(1, 9):
            target.select(0)
            assert target.step(timeout=LIMIT).reason is StopReason.STEP
            assert target.cpu.address >= after + 20, f"after {executed} steps"
        assert value_in(guest) == 0, "CPU 1 has not begun"
        assert target.resume(timeout=LIMIT).reason is StopReason.OFF
        assert guest.session.processor.exit_status == status(5)
    assert on_qemu_alone(image, "-smp", "2").status == status(5)


def test_code_that_one_executes_and_breakpoints_that_come_and_go(machine):
    times = 12
    with machine(times, both=NOP + RET, alone=NOP + RET) as guest:
        guest.breakpoints.add(ALONE)
        seen = []
        for stop in stops_of(guest, StopReason.BREAKPOINT):
            cpu = stop.cpu
            seen.append((cpu.number, cpu.address))
            if len(seen) == times // 2:
                guest.breakpoints.remove(ALONE)
                guest.breakpoints.add(ALONE + 1)
        assert seen == [(1, ALONE)] * (times // 2) + [(1, ALONE + 1)] * (times // 2 + 1)


@pytest.mark.parametrize("times", SIZES)
@pytest.mark.parametrize("accesses", [1, 2], ids=["one at a time", "two in a row"])
def test_each_access_of_both_to_the_same_word(machine, times, accesses):
    code = {bits: accesses * one for bits, one in increment().items()}
    with machine(times, first=code[32] + RET, second=code[16] + RET) as guest:
        guest.watchpoints.add(VALUE, 4)
        ends = [
            [place + (number + 1) * len(one) // accesses for number in range(accesses)]
            for place, one in ((FIRST, code[32]), (SECOND, code[16]))
        ]
        hits, values = Counter(), [0]
        for stop in stops_of(guest, StopReason.WATCHPOINT):
            if not stop.cpu.number and stop.cpu.address not in ends[0]:
                continue  # the loader and the code that it has loaded write there too
            hits[stop.cpu.number, stop.cpu.address] += 1
            values.append(int.from_bytes(guest.memory.read(VALUE, 4), "little"))
        assert hits == {(number, end): times for number in range(2) for end in ends[number]}
        assert all(later - former in (0, 1, 2) for former, later in pairwise(values))
        assert guest.session.processor.exit_status == status(2 * times * accesses)


@pytest.mark.parametrize("times", SIZES)
def test_each_exchange_of_both(machine, times):
    """XCHG locks without a prefix."""
    first, second = b"\x87\x1d" + struct.pack("<I", VALUE), b"\x66\x87\x1e" + struct.pack("<H", VALUE)
    with machine(times, first=first + RET, second=second + RET) as guest:
        guest.watchpoints.add(VALUE, 4)
        hits = Counter((stop.cpu.number, stop.cpu.address) for stop in stops_of(guest, StopReason.WATCHPOINT))
        assert hits[0, FIRST + len(first)] == hits[1, SECOND + len(second)] == times
        assert {number for number, _ in hits} == {0, 1}


def test_steps_of_one_while_the_other_stands(machine):
    times = 4
    with machine(times, both=NOP + RET, alone=NOP * 3 + RET) as guest:
        guest.breakpoints.add(ALONE)
        assert guest.run(timeout=LIMIT).cpu.number == 1
        first, second = guest.cpus
        for turn in range(times):
            before = bytes(first.registers.save), bytes(first.vcpu.processor.gprs)
            for step in range(1, 4):
                stop = guest.step(timeout=LIMIT)
                assert (stop.reason, stop.cpu.number, second.address) == (StopReason.STEP, 1, ALONE + step)
            assert (bytes(first.registers.save), bytes(first.vcpu.processor.gprs)) == before
            assert guest.run(timeout=LIMIT).reason is (StopReason.OFF if turn == times - 1 else StopReason.BREAKPOINT)


def test_each_is_stepped_where_it_stands(machine):
    with machine(40, both=NOP * 8 + RET) as guest:
        guest.breakpoints.add(BOTH)
        hits = Counter()
        while set(hits) != {0, 1}:
            hits[guest.run(timeout=LIMIT).cpu.number] += 1
        guest.breakpoints.clear()
        target = Target(guest)
        for _ in range(10):
            for number in range(2):
                target.select(number)
                address = target.cpu.address
                line = next(iter(target.cpu.disassemble()))
                assert target.step(timeout=LIMIT).reason is StopReason.STEP
                assert target.stopped_cpu.number == number
                if line.text == "nop":
                    assert target.cpu.address == address + 1
        assert guest.run(timeout=LIMIT).reason is StopReason.OFF


def test_a_step_into_the_handler_of_an_exception(machine):
    """Of CPU 1, in real mode."""
    handler = 0x8C00
    with machine(3, alone=UD2 + RET) as guest:
        guest.breakpoints.add(ALONE)
        for turn in range(3):
            assert guest.run(timeout=LIMIT).reason is StopReason.BREAKPOINT
            guest.memory.write(4 * Vector.UD, struct.pack("<HH", handler, 0))
            guest.memory.write(handler, SKIP)
            assert guest.step(timeout=LIMIT).cpu.address == handler
            for _ in range(5):
                guest.step(timeout=LIMIT)
            assert guest.cpus[1].address == ALONE + 2, turn
        assert guest.run(timeout=LIMIT).reason is StopReason.OFF


def test_a_cpu_in_hlt_hits_nothing(machine):
    """CPU 1 has halted for good, before an instruction with a breakpoint, and CPU 0 hits one again and again."""
    code = increment()[32]
    with machine(1 << 30, first=NOP + code + RET, alone=b"\xf4" + RET) as guest:
        guest.breakpoints.add(ALONE)
        assert guest.run(timeout=LIMIT).cpu.number == 1
        guest.breakpoints.clear()
        assert guest.run(timeout=0.3).reason is StopReason.TIMEOUT
        for place in (FIRST, FIRST + 1, ALONE + 1):
            guest.breakpoints.add(place)
        guest.watchpoints.add(VALUE, 4)
        seen = []
        for _ in range(24):
            stop = guest.run(timeout=LIMIT)
            assert (stop.cpu.number, guest.cpus[1].address) == (0, ALONE)
            seen.append(stop.cpu.address - FIRST)
        assert seen[3:] == seen[:-3]
        assert set(seen) == {0, 1, 1 + len(code)}


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_guest_that_is_stopped_otherwise_keeps_its_hits(machine, seconds):
    """By interrupts, and by deadlines that pass while it is stepped past a breakpoint."""
    times = 20
    with machine(times, both=NOP + RET) as guest:
        guest.breakpoints.add(BOTH)
        seen, reasons = (set(), set()), Counter()
        for turn in range(20 * times):
            if turn % 3 == 0:
                guest.interrupt()
            stop = guest.run(timeout=LIMIT if turn % 3 == 2 else seconds)
            reasons[stop.reason] += 1
            if stop.reason is StopReason.OFF:
                break
            for cpu in guest.cpus:  # one that is stopped there otherwise is not told to have hit it
                if cpu.address == BOTH:
                    seen[cpu.number].add(cpu.registers.rcx)
        assert seen == (set(range(1, times + 1)),) * 2
        assert reasons[StopReason.OFF] == 1
        assert reasons[StopReason.INTERRUPTED] > 5


@pytest.mark.parametrize("isolate", [False, True])
def test_a_reset_keeps_them(isolate, tmp_path):
    """The firmware's entry and the other CPU at the reset vector do not count."""
    times, image, code = 5, tmp_path / "image.bin", calling(5, both=NOP + RET, alone=NOP + RET)
    ends = b"\xba\xf4\x00\x00\x00\xef"  # MOV EDX, 0xF4; OUT DX, EAX
    assert code.count(ends) == 1
    image.write_bytes(code.replace(ends, b"\xb0\xfe\xe6\x64\xeb\xfe"))  # a reset by the keyboard controller
    with Machine(image, cpus=2, processor="qemu", exceptions="none", reboot=True, isolate=isolate) as guest:
        for place in (BOTH, ALONE, 0xFFFF_FFF0):
            guest.breakpoints.add(place)
        hits = Counter()
        while hits[1, ALONE] < 3 * times:
            stop = guest.run(timeout=LIMIT)
            assert stop.reason is StopReason.BREAKPOINT
            hits[stop.cpu.number, stop.cpu.address] += 1
        assert hits[1, BOTH] == 3 * times
        assert 2 * times < hits[0, BOTH] <= 3 * times
        assert set(hits) <= {(1, ALONE), (1, BOTH), (0, BOTH), (0, 0xFFFF_FFF0)}


def leaving(code, value):
    """Return an image whose CPU 1 spins at OTHER, while CPU 0 waits a while and then writes a value to a port."""

    def first(guest):
        guest.mov(ESP, 0x6000)
        for register, command in ((ICR2, 1 << 24), (ICR, INIT), (ICR, STARTUP | OTHER >> 12)):
            guest.mov(register, command)
        guest.mov(ECX, 200_000)
        guest.label("wait")
        guest.pause()
        guest.dec(ECX)
        guest.jne("wait")
        guest.mov(EAX, value)
        guest.mov(EDX, code)
        guest.out(DX, AL)
        guest.label("stay")
        guest.jmp("stay")

    return multiboot(first, [(OTHER, NOP + b"\xeb\xfd")])


@pytest.mark.parametrize("status", [0, 3])
def test_the_machine_ends_while_another_cpu_is_stopped(status, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(leaving(0xF4, status))
    for _ in range(4):
        with Machine(image, cpus=2, processor="qemu", exceptions="none") as guest:
            guest.breakpoints.add(OTHER)
            assert all(stop.cpu.address == OTHER for stop in stops_of(guest, StopReason.BREAKPOINT))
            assert guest.session.processor.exit_status == 2 * status + 1


@pytest.mark.parametrize(("port", "value"), [(0x64, 0xFE), (0x92, 1)])
def test_the_machine_is_reset_while_another_cpu_is_stopped(port, value, tmp_path):
    image = tmp_path / "image.bin"
    image.write_bytes(leaving(port, value))
    with Machine(image, cpus=2, processor="qemu", exceptions="none", reboot=True) as guest:
        guest.breakpoints.add(OTHER)
        while guest.session.vm.vcpu.resets < 6:
            stop = guest.run(timeout=LIMIT)
            assert (stop.reason, stop.cpu.number, stop.cpu.address) == (StopReason.BREAKPOINT, 1, OTHER)


@pytest.mark.parametrize("cpus", [3, 4])
def test_more_cpus(cpus, tmp_path):
    """All raise #UD in a loop, CPU 0 in 32-bit code and the others in real mode."""
    times, image = 12, tmp_path / "image.bin"
    image.write_bytes(raising(cpus, times))
    with Machine(image, cpus=cpus, processor="qemu", exceptions="none") as guest:
        guest.breakpoints.add(HANDLER)
        guest.breakpoints.add(HANDLER_32)
        hits = Counter(stop.cpu.number for stop in stops_of(guest, StopReason.BREAKPOINT))
        assert hits == dict.fromkeys(range(cpus), times)


@pytest.mark.parametrize("mask", ["none", "all"])
@pytest.mark.parametrize("turns", TURNS)
def test_the_matrix_on_both_at_once(turns, mask, image, plain, tmp_path):
    """Stopped at breakpoints and at a watchpoint, and stepped, it ends with the same hashes."""
    guest, console = image("long", CPUS=3, QUIET=1), tmp_path / "console.txt"
    places, seen = breakpoints(guest, "long"), Counter()
    with Machine(guest, cpus=2, processor="qemu", exceptions=mask, console=console) as machine:

        def stop(reason, execute, times):
            for _ in range(times):
                stopped = execute(timeout=LIMIT)
                assert stopped.reason is reason
                seen[reason, stopped.cpu.number] += 1

        for _ in range(turns):
            machine.watchpoints.add(HASH.address, HASH.size)
            stop(StopReason.WATCHPOINT, machine.run, 20)
            machine.watchpoints.clear()
            for place in places:
                machine.breakpoints.add(place)
            stop(StopReason.BREAKPOINT, machine.run, 20)
            stop(StopReason.STEP, machine.step, 40)
            machine.breakpoints.clear()
        assert machine.run(timeout=LIMIT).reason is StopReason.OFF
    assert_same(console.read_bytes(), plain("long", "-smp", "2", CPUS=3, QUIET=1).console)
    assert all(seen[StopReason.BREAKPOINT, number] > 5 * turns for number in range(2))


@pytest.mark.soak
@pytest.mark.parametrize("number", range(200))
def test_none_of_many_runs_on_a_busy_machine_hangs(number, tmp_path):
    """Four processes that only count keep the processors busy."""
    image, code = tmp_path / "image.bin", increment()
    image.write_bytes(calling(12, both=NOP + RET, first=code[32] + RET, second=code[16] + RET))
    with contextlib.ExitStack() as closing:
        for _ in range(4):
            busy = closing.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            closing.callback(busy.kill)
        with Machine(image, cpus=2, processor="qemu", exceptions="none", isolate=bool(number % 2)) as guest:
            guest.breakpoints.add(BOTH)
            guest.watchpoints.add(VALUE, 4)
            hits = Counter()
            while (stop := guest.run(timeout=LIMIT)).reason is not StopReason.OFF:
                hits[stop.reason] += 1
                assert stop.reason in (StopReason.BREAKPOINT, StopReason.WATCHPOINT)
            assert hits[StopReason.BREAKPOINT] == 24
            assert hits[StopReason.WATCHPOINT] >= 24


@pytest.mark.soak
def test_linux_on_four_cpus_goes_on_after_hits_of_all(tmp_path):
    """Interrupts arrive at CPUs that are stopped for what another one accesses."""
    try:
        kernel, initrd, names = testguests.linux_kernel(), testguests.smp_initrd(), testguests.linux_kallsyms()
    except testguests.Unobtainable as reason:
        pytest.skip(str(reason))
    places = {name: int(address, 16) for address, _, name, *_ in map(str.split, names.read_text().splitlines())}
    slide = places["_stext"] - LINKED_AT
    console, hits = tmp_path / "console.txt", Counter()
    append = f"{LINUX_ON_FOUR.append} nokaslr"
    with Machine(
        kernel, initrd=initrd, append=append, cpus=4, processor="qemu", exceptions="none", console=console
    ) as guest:
        for name in ("do_exit", "wake_up_new_task", "__x64_sys_execve"):
            guest.breakpoints.add(places[name] - slide)
        while (stop := guest.run(timeout=2 * LIMIT)).reason is not StopReason.OFF:
            hits[stop.reason] += 1
            assert stop.reason in (StopReason.BREAKPOINT, StopReason.WATCHPOINT)
            if stop.reason is StopReason.WATCHPOINT and hits[stop.reason] == 200:
                guest.watchpoints.clear()
            elif stop.reason is StopReason.BREAKPOINT and hits[stop.reason] == 40:
                guest.watchpoints.add(places["jiffies_64"] - slide, 8)
            elif hits[StopReason.BREAKPOINT] == 300:
                guest.breakpoints.clear()
    assert hits == {StopReason.BREAKPOINT: 300, StopReason.WATCHPOINT: 200}
    assert b"trapline: up with 4" in console.read_bytes()
    assert b"trapline: done" in console.read_bytes()
