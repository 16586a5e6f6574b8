"""One machine as every debugger sees it."""

import contextlib
import subprocess
import threading

import pytest

from trapline.api import DISCARD, Machine, inject
from trapline.arch.vectors import Vector
from trapline.asm.assembler import Assembler
from trapline.asm.operands import EAX, Mem
from trapline.debugger.registers import find, read
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.hypervisor.stop import StopReason

LOOP = bytes.fromhex("b90300 e80400 e2fb 0f0b 40 c3 f4")
"""`mov cx, 3; again: call add; loop again; ud2; add: inc ax; ret; hlt`, in real mode."""
LOOPS, UD2, ADD, HLT = 0x7C06, 0x7C08, 0x7C0A, 0x7C0C
OFF = bytes.fromhex("b0fe e664 f4")
"""`mov al, 0xfe; out 0x64, al; hlt`: the keyboard controller resets the machine."""
RECURSION = bytes.fromhex("b90300 e80100 f4 49 7403 e8faff 90 c3")
"""`mov cx, 3; call down; hlt; down: dec cx; jz end; call down; end: nop; ret`, in real mode."""

SHARED = 0x8000


def two_cpus(code, place):
    """Return 32-bit code that starts CPU 1, in real mode, with other code at SHARED, and then goes to a place in it."""
    asm = Assembler(32)
    for at in range(0, len(code), 4):
        asm.mov(Mem(None, SHARED + at, size=32), int.from_bytes(code[at : at + 4], "little"))
    for register, value in ((0x310, 1 << 24), (0x300, 0x4500), (0x300, 0x4600 | SHARED >> 12)):
        asm.mov(Mem(None, 0xFEE0_0000 + register, size=32), value)
    asm.mov(EAX, place)
    asm.jmp(EAX)
    return asm.assemble(0x10_0000)


@contextlib.contextmanager
def target_of(code, **options):
    """A target with code for real mode."""
    with Machine(code, entry_mode=16, **options) as machine:
        yield Target(machine)


def test_it_stops_at_the_first_instruction() -> None:
    with target_of(LOOP) as target:
        assert target.cpu.address == 0x7C00
        assert target.stop.reason is StopReason.INTERRUPTED
        assert not target.is_over


def test_a_call_is_stepped_over() -> None:
    with target_of(LOOP) as target:
        target.step()
        assert target.step_over().reason is StopReason.STEP
        assert (target.cpu.address, target.cpu.registers.rax & 0xFF) == (LOOPS, 1)
        assert not list(target.machine.breakpoints)


def test_a_step_over_a_recursive_call_ends_in_the_frame_that_made_it() -> None:
    with target_of(RECURSION) as target:
        target.run_to(0x7C07)
        target.step()
        target.step()
        stack = target.cpu.registers.rsp
        assert target.cpu.disassemble()[0].text.startswith("call")
        target.step_over()
        assert (target.cpu.address, target.cpu.registers.rsp) == (0x7C0D, stack)
        assert target.cpu.registers.rcx & 0xFF == 0


def test_repeated_iterations_are_stepped_over() -> None:
    with target_of(bytes.fromhex("b90500 f3aa f4")) as target:
        target.step()
        target.step_over()
        assert (target.cpu.address, target.cpu.registers.rcx & 0xFF) == (0x7C05, 0)


def test_a_function_is_stepped_out_of() -> None:
    with target_of(bytes.fromhex("e80100 f4 55 89e5 90 5d c3")) as target:
        target.run_to(0x7C07)
        assert target.frames()[1].address == 0x7C03
        assert target.step_out().reason is StopReason.STEP
        assert target.cpu.address == 0x7C03
        with pytest.raises(UsageError, match="the caller is not known"):
            target.step_out()


def test_a_breakpoint_on_the_way_stops_a_step_over_and_stays() -> None:
    with target_of(LOOP) as target:
        target.step()
        target.machine.breakpoints.add(ADD)
        assert target.step_over().reason is StopReason.BREAKPOINT
        assert target.cpu.address == ADD
        assert list(target.machine.breakpoints) == [ADD]
        assert target.run_to(LOOPS).reason is StopReason.STEP
        assert target.run_to(ADD).reason is StopReason.BREAKPOINT


def test_a_breakpoint_that_comes_while_a_call_is_stepped_over_stays() -> None:
    with target_of(bytes.fromhex("e80100 f4 0f0b c3")) as target:  # call function; hlt; function: ud2; ret
        machine = target.machine

        @machine.on(Vector.UD)
        def undefined(exc):
            machine.breakpoints.add(0x7C03)  # as an editor does
            exc.rip += 2
            return DISCARD

        assert target.step_over().reason is StopReason.BREAKPOINT
        assert target.cpu.address == 0x7C03
        assert list(machine.breakpoints) == [0x7C03]
        assert machine.session.vm.vcpu.breakpoints == {0x7C03}


def test_a_cpu_runs_to_a_place_where_another_one_comes_too() -> None:
    place = SHARED + 5
    machine_code = two_cpus(
        bytes.fromhex("b9d007 e2fe 90 ebfd"), place
    )  # mov cx, 2000; loop to itself; place: nop; jmp place
    with Machine(machine_code, entry_mode=32, cpus=2, processor="unicorn", schedule=1) as machine:
        target = Target(machine)
        target.run_to(place)
        assert target.cpu.number == 0
        target.select(1)
        assert target.run_to(place).reason is StopReason.STEP
        assert (target.cpu.number, target.cpu.address) == (1, place)
        assert target.cpu.registers.rcx & 0xFFFF == 0


def test_a_cpu_that_cannot_be_stepped_leaves_the_stop_that_of_the_other() -> None:
    with target_of(LOOP, cpus=2) as target:
        target.catch("ud")
        target.resume()
        target.machine.memory.write(4 * Vector.UD, HLT.to_bytes(4, "little"))
        target.select(1)
        with pytest.raises(UsageError, match="CPU 1 waits for a startup IPI"):
            target.step()
        target.select(None)
        assert target.cpu.number == 0
        target.step()
        assert target.cpu.address == HLT


def test_a_breakpoint_that_was_told_of_is_not_told_again_after_a_step_of_another_cpu() -> None:
    code = bytes.fromhex("40 90 ebfc ebfe")  # again: inc ax; place: nop; jmp again; elsewhere: jmp elsewhere
    image = two_cpus(code, SHARED + 4)
    with Machine(image, entry_mode=32, cpus=2, processor="unicorn", schedule=1) as machine:
        target = Target(machine)
        machine.breakpoints.add(SHARED + 1)
        for times in range(1, 4):
            stop = target.resume()
            assert (stop.reason, stop.cpu.number, stop.cpu.address) == (StopReason.BREAKPOINT, 1, SHARED + 1)
            assert stop.cpu.registers.rax & 0xFFFF == times
            target.select(0)
            target.step()


def test_an_exception_is_that_of_its_cpu_whichever_is_looked_at() -> None:
    with Machine("sample:ap-no-nxe", processor="unicorn", exceptions="all") as machine:
        target = Target(machine)
        target.catch("pf")
        target.resume()
        first, second = (cpu.registers for cpu in machine.cpus)
        code, before = find("error_code"), (first.rip, second.rip)
        assert (target.cpu.number, read(target, code)) == (1, target.stop.exception.error_code)
        target.select(0)
        assert (read(target, code), target.exception) == (None, None)
        target.skip()
        assert (first.rip == before[0], second.rip > before[1]) == (True, True)
        target.select(None)
        assert read(target, code) is not None


def test_a_guest_that_ends_inside_a_step_over() -> None:
    with target_of(bytes.fromhex("e80100 f4") + OFF) as target:
        assert target.step_over().reason is StopReason.RESET
        assert target.is_over


def test_an_exception_that_is_caught_stops_before_its_delivery() -> None:
    with target_of(LOOP, exceptions="none") as target:
        caught = target.catch("ud if rax == 3")
        stop = target.resume()
        assert stop.exception is not None
        assert stop.exception.vector is Vector.UD
        assert target.cpu.address == UD2
        assert target.explain() is not None
        target.release(caught)
        target.cpu.registers.rip += 2
        assert target.step(DISCARD).reason is StopReason.STEP
        assert target.cpu.registers.rax == 4


def test_another_exception_is_delivered_in_its_place() -> None:
    with target_of(LOOP) as target:
        target.catch("ud")
        target.resume()
        target.machine.memory.write(4 * Vector.GP, HLT.to_bytes(4, "little"))
        target.step(inject(Vector.GP))
        assert target.cpu.address == HLT
        with pytest.raises(UsageError, match="not stopped at an exception"):
            target.resume(inject(Vector.GP))


def test_a_step_over_an_exception_is_its_delivery() -> None:
    with target_of(LOOP) as target:
        target.catch("ud")
        target.resume()
        target.machine.memory.write(4 * Vector.UD, HLT.to_bytes(4, "little"))
        target.step_over()
        assert target.cpu.address == HLT


def test_vectors_that_are_passed_do_not_stop() -> None:
    with target_of(LOOP) as target:
        target.catch("ud")
        target.passed = 1 << Vector.UD
        target.machine.memory.write(4 * Vector.UD, HLT.to_bytes(4, "little"))
        assert target.resume().reason is StopReason.HALTED


def test_catches_are_numbered_once() -> None:
    with target_of(LOOP) as target:
        first, second = target.catch("ud"), target.catch("ud")
        target.release(first)
        assert target.catches == (second,)
        assert [str(caught) for caught in (target.catch("pf if cpl == 0"), second)] == ["3: pf if cpl == 0", "2: ud"]
        with pytest.raises(KeyError):
            target.release(first)


@pytest.mark.parametrize("text", ["", "nmi", "pf if colour", "pf if"])
def test_what_cannot_be_caught(text: str) -> None:
    with target_of(LOOP, exceptions="none") as target:
        with pytest.raises(UsageError):
            target.catch(text)
        assert target.catches == ()
        assert target.machine.session.vm.mask == 0


def test_what_is_not_forced_is_refused_and_forces_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with target_of(LOOP, exceptions="pf") as target:
        processor = target.machine.session.processor
        monkeypatch.setattr(processor, "capabilities", processor.capabilities._replace(ts_error_code=False))
        with pytest.raises(UsageError, match="gives no error code for #TS"):
            target.catch("ud,ts")
        assert target.machine.session.vm.mask == 1 << Vector.PF


def test_a_running_guest_is_interrupted() -> None:
    with target_of(bytes.fromhex("ebfe")) as target:
        timer = threading.Timer(0.05, target.interrupt)
        timer.start()
        assert target.resume().reason is StopReason.INTERRUPTED
        timer.join()
        assert target.run_to(0x7C02, timeout=0.05).reason is StopReason.TIMEOUT
        assert not list(target.machine.breakpoints)


def test_a_shutdown_shows_the_state_before_the_reset() -> None:
    with Machine("sample:stack-overflow") as machine:
        target = Target(machine)
        assert target.resume().reason is StopReason.SHUTDOWN
        assert target.is_over
        assert target.explain() is not None
        assert target.cpu.registers.cr3
        with pytest.raises(UsageError, match="cannot run any more"):
            target.step()


def test_a_line_is_stepped(compiled) -> None:
    source = """int twice(int value);
void _start(void) {
    int value = 21;
    value = twice(value);
    value++;
    for (;;) ;
}
int twice(int value) {
    int doubled = value + value;
    return doubled;
}
"""
    program = compiled(
        source, "-g", "-O0", "-fno-pic", "-no-pie", "-Wl,-e,_start", "-Wl,-Ttext=0x200000", "-fcf-protection=none"
    )
    text = program.with_name("code")
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", program, text], check=True)
    with Machine(text, entry_mode=64, load_address=0x200000, symbols=[str(program)]) as machine:
        target = Target(machine)
        target.step_line(into=False)
        assert target.line is not None
        assert target.line[1] == 3
        target.step_line(into=False)
        assert target.line[1] == 4
        target.step_line(into=True)
        assert target.cpu.symbol is not None
        assert target.cpu.symbol.name == "twice"
        target.step_line(into=True)
        assert target.line[1] == 9
        target.step_out()
        target.step_line(into=False)
        assert target.line[1] == 5


def test_an_instruction_is_skipped_as_the_cpu_counts() -> None:
    with Machine(LOOP, entry_mode=16) as machine:
        target = Target(machine)
        registers = target.cpu.registers
        registers.cs.base, registers.rip = UD2 + 2, 0xFFFF_FFFE  # together the UD2
        target.skip()
        assert registers.rip == 0
        registers.cs.base, registers.rip = 0xF000_0000, 0
        with pytest.raises(UsageError, match="cannot be skipped"):
            target.skip()
