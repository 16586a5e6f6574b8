"""Guests with two CPUs in this process, by the library and the command line."""

import re

import pytest

from trapline import DISCARD, STOP, Machine, StopReason, UsageError, run
from trapline.arch.vectors import Vector
from trapline.asm import operands
from trapline.asm.assembler import Assembler
from trapline.asm.operands import AX, CS, DS, EAX, EDX, ESP, Mem
from trapline.cli.main import main
from trapline.guests.samples import End, find_sample, places
from trapline.report.result import Ending
from trapline.report.text import headline, report
from trapline.session.other_cpus import describe_others
from trapline.symbols import Names

CODE, OTHER = 0x10_0000, 0x8000
READY = Mem(None, 0x9000, size=32)
ICR, ICR2 = Mem(None, 0xFEE0_0300, size=32), Mem(None, 0xFEE0_0310, size=32)


def guest(other, *, waits=True):
    """Return 32-bit code that puts real mode code at OTHER, starts CPU 1 there, waits and switches off."""
    real, code = Assembler(16), Assembler(32)
    other(real)
    blob = real.assemble(0)
    for at in range(0, len(blob), 4):
        code.mov(Mem(None, OTHER + at, size=32), int.from_bytes(blob[at : at + 4].ljust(4, b"\xf4"), "little"))
    for register, value in ((ICR2, 1 << 24), (ICR, 0x4500), (ICR, 0x4608)):
        code.mov(register, value)
    code.label("wait")
    if waits:
        code.pause()
        code.cmp(READY, 1)
        code.jb("wait")
    code.mov(EDX, 0xF4)
    code.mov(EAX, 0)
    code.out(operands.DX, operands.AL)
    code.label("stay")
    code.jmp("stay")
    return code.assemble(CODE)


def no_idt(code):
    code.lidt(Mem(None, 0x7F0))  # zeros: a limit of 0
    code.ud2()


def three_faults(code):
    code.mov(AX, CS)
    code.mov(DS, AX)
    for _ in range(3):
        code.ud2()
    code.inc(Mem(None, 0x1000, size=32))
    code.hlt()


OPTIONS = {"entry_mode": 32, "cpus": 2, "processor": "unicorn"}


def test_a_triple_fault_is_that_of_its_cpu():
    result = run(guest(no_idt), timeout=20, **OPTIONS)
    assert result.ending is Ending.SHUTDOWN
    assert result.crash.cpu == 1
    assert (result.crash.registers.cs.selector, result.crash.bits) == (0x0800, 16)
    assert result.to_json()["crash"]["cpu"] == 1
    assert headline(result).startswith("guest: shutdown (triple fault) on CPU 1 after ")
    assert any(line.startswith("at the shutdown on CPU 1  cpl 0  0800:") for line in report(result))
    assert any(each.startswith("CPU 0 executes at 0008:") for each in result.findings)
    assert "IDTR.limit" in result.explanation.cause
    assert {record.vcpu for record in result.exceptions} == {1}
    assert str(result.exceptions[0]).startswith("#UD   cpu 1  cpl 0  0800:")


def test_stored_evidence_names_the_cpu(tmp_path, capsys):
    file = tmp_path / "records.jsonl"
    run(guest(no_idt), timeout=60, output=file, **OPTIONS)
    assert main(["explain", str(file)]) == 0
    assert re.search(r"^up to record \d+ on CPU 1$", capsys.readouterr().out, re.M)
    assert main(["show", str(file), "--where", "vcpu == 1 and vector == ud"]) == 0
    assert re.fullmatch(r" +0  #UD   cpu 1  cpl 0  0800:0{15}5\n", capsys.readouterr().out)


def test_with_one_cpu_none_is_named():
    result = run(b"\xf4", timeout=60, **{**OPTIONS, "cpus": 1})
    assert result.crash.cpu is None
    assert "cpu" not in result.to_json()["crash"]
    assert not any(each.startswith("CPU") for each in result.findings)


def test_callbacks_see_the_cpu_that_raised_it_and_the_other():
    seen = []
    with Machine(guest(three_faults), exceptions="all", **OPTIONS) as m:
        assert [cpu.number for cpu in m.cpus] == [0, 1]

        @m.on(Vector.UD)
        def undefined(exc):
            seen.append((exc.vcpu, exc.cs, m.cpus[0].registers.cs.selector))
            exc.rip += 2
            return STOP if len(seen) == 3 else DISCARD

        stop = m.run(timeout=20)
        assert stop.reason is StopReason.EXCEPTION
        assert str(stop.exception).startswith("#UD on CPU 1 at 0800:")
        assert seen == [(1, 0x800, 8)] * 3
        stop.deliver(DISCARD)
        assert m.run(timeout=20).reason is StopReason.OFF


def test_a_guest_that_halts_everywhere_has_halted():
    result = run(b"\xf4", timeout=20, **OPTIONS)
    assert result.ending is Ending.HALTED
    assert "CPU 1 waits for a startup IPI." in result.findings


def hangs_in_its_handler(code):
    code.xor(AX, AX)
    code.mov(DS, AX)
    code.mov(Mem(None, 4 * Vector.UD, size=32), OTHER << 12 | 0x10)  # OTHER:0010
    code.ud2()
    for _ in range(2):
        code.nop()
    code.cli()
    code.hlt()


def test_a_guest_that_hangs_is_told_of_where_an_exception_was_not_returned_from():
    with Machine(guest(hangs_in_its_handler), exceptions="all", **OPTIONS) as m:
        m.breakpoints.add(OTHER + 0x10)
        assert m.run(timeout=60).cpu.number == 1
        m.breakpoints.clear()
        m.interrupt()
        m.run()
        m.session.vm.vcpu = m.session.vm.vcpus[0]
        result = m.result()
    assert (result.ending, result.crash.cpu) == (Ending.INTERRUPTED, 1)
    assert [each.record.vector for each in result.unreturned] == [Vector.UD]
    assert any(each.startswith("CPU 0 executes at 0008:") for each in result.findings)


@pytest.mark.parametrize("cpus", [0, 9, -1])
def test_a_number_of_cpus_that_cannot_be(cpus):
    with pytest.raises(UsageError, match=f"--cpus {cpus}: a guest has 1 to 8 CPUs"):
        run(b"\xf4", **{**OPTIONS, "cpus": cpus})


@pytest.mark.parametrize(
    ("name", "ending", "cpu", "told"),
    [
        ("ap-trampoline", Ending.DEBUG_EXIT, None, None),
        ("ap-gdt-high", Ending.SHUTDOWN, 1, "GDTR has base 0x0 and limit 0x0"),
        ("ap-no-nxe", Ending.SHUTDOWN, 1, "has bit 63 (NX) set while EFER.NXE is clear"),
        ("ap-stack-shared", Ending.DEBUG_EXIT, 0, "The stack pointers of CPU 0, 0x111fd0, and of CPU 1, 0x111ff8, are"),
        ("ap-wrong-page", Ending.DEBUG_EXIT, 0, "vector 0x20, so at 0x20000, where there is no code: memory is all"),
    ],
)
def test_a_sample_with_a_second_cpu(name, ending, cpu, told):
    sample = find_sample(name)
    result = run(f"sample:{name}", processor="unicorn", timeout=60)
    assert result.ending is ending
    assert (None if result.crash is None else result.crash.cpu) == cpu
    assert result.exit_code == {End.DONE: 0, End.PANIC: 4, End.SHUTDOWN: 3}[sample.end]
    assert {record.vector for record in result.exceptions} == set(sample.vectors)
    if told is not None:
        assert told in " ".join((*result.findings, "" if result.explanation is None else result.explanation.cause))


@pytest.mark.parametrize(("cr0", "told"), [(0x10, True), (0x11, False)])
def test_a_cpu_that_has_left_real_mode_was_started_at_code(cr0, told):
    """Firmware uses the page for something else then."""
    with Machine("sample:ap-trampoline", processor="unicorn") as machine:
        machine.on(Vector.UD, where="vcpu == 1")(lambda exc: STOP)
        assert machine.run(60).reason is StopReason.EXCEPTION
        boot, other = machine.session.vm.vcpus
        other.save.cr0 = cr0
        machine.memory.write(other.startup << 12, bytes(0x1000))
        assert ("where there is no code" in " ".join(describe_others(boot, Names()))) is told


def test_a_sample_that_needs_a_second_cpu_says_so():
    result = run("sample:ap-trampoline", processor="unicorn", cpus=1, timeout=60)
    assert b"no second CPU answered; --cpus 2 gives the machine one\n" in result.console
    assert result.exit_code == 4


def test_a_schedule_is_for_guests_in_this_process():
    with pytest.raises(UsageError, match="--schedule is for guests in this process: QEMU's CPUs take no turns"):
        run("sample:ap-trampoline", processor="qemu", schedule=1)


def scheduled(guest, options, code, counted, *, stops=0):
    """Return the times at which exceptions were raised, with so many stops of a debugger."""
    with Machine(guest, exceptions="all", schedule=7, processor="unicorn", **options) as m:
        if stops:
            m.breakpoints.add(code)
            m.watchpoints.add(counted, 4, "w")
        for _ in range(stops):
            assert m.run(timeout=60).reason in (StopReason.BREAKPOINT, StopReason.WATCHPOINT)
            m.step()
        m.breakpoints.clear()
        m.watchpoints.clear()
        assert m.run(timeout=60).reason is StopReason.OFF
        return [(record.tsc, record.vcpu) for record in m.exceptions]


def counts_and_faults(code):
    code.xor(AX, AX)
    code.mov(DS, AX)
    code.mov(Mem(None, 4 * Vector.UD, size=32), OTHER << 12 | 0x30)
    code.label("again")
    code.inc(Mem(None, 0x1000, size=32))
    code.ud2()
    code.cmp(Mem(None, 0x1000, size=32), 50)
    code.jb("again")
    code.inc(READY)
    code.hlt()
    while len(code.assemble(0)) < 0x30:
        code.nop()
    code.add(Mem(ESP, size=16), 2)
    code.iret()


@pytest.mark.parametrize(
    "machine",
    [
        (guest(counts_and_faults), {"entry_mode": 32, "cpus": 2}, OTHER, 0x1000),
        ("sample:demand-paging", {}, places.CODE, places.COUNT),
    ],
    ids=["two CPUs", "one CPU"],
)
def test_a_schedule_is_kept_to_the_tick_also_under_a_debugger(machine):
    plain = scheduled(*machine)
    assert len(plain) >= 50
    assert scheduled(*machine) == plain
    assert scheduled(*machine, stops=6) == plain


def test_a_stop_names_its_cpu_and_a_waiting_one_cannot_be_stepped():
    with Machine("sample:ap-trampoline", processor="unicorn", exceptions="ud") as m:
        m.interrupt()
        assert m.run().cpu.number == 0
        m.session.vm.vcpu = m.session.vm.vcpus[1]
        with pytest.raises(UsageError, match="CPU 1 waits for a startup IPI: there is nothing to step"):
            m.step()
        m.session.vm.vcpu = m.session.vm.vcpus[0]
        m.watchpoints.add(places.VARIABLES + 48, 4, "w")
        stop = m.run(timeout=60)
        assert (stop.reason, stop.cpu.number, stop.cpu.bits) == (StopReason.WATCHPOINT, 1, 64)
        m.watchpoints.clear()
        cli, hlt = m.step(), m.step()
        assert (cli.reason, hlt.reason, hlt.cpu.number) == (StopReason.STEP, StopReason.STEP, 1)
        assert hlt.stopped.detail == "CPU 1 waits in a HLT, which another CPU may end"
        assert m.run(timeout=60).reason is StopReason.OFF
