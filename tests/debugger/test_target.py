"""One machine as every debugger sees it."""

from trapline.api import DISCARD, Machine
from trapline.arch.vectors import Vector
from trapline.debugger.target import Target
from trapline.hypervisor.stop import StopReason

LOOP = bytes.fromhex("b90300 e80400 e2fb 0f0b 40 c3 f4")
"""`mov cx, 3; again: call add; loop again; ud2; add: inc ax; ret; hlt`, in real mode."""
LOOPS, UD2, HLT = 0x7C06, 0x7C08, 0x7C0C


def test_it_stops_at_the_first_instruction() -> None:
    with Machine(LOOP, entry_mode=16) as machine:
        target = Target(machine)
        assert target.cpu.address == 0x7C00
        assert not target.is_over


def test_a_call_is_stepped_over() -> None:
    with Machine(LOOP, entry_mode=16) as machine:
        target = Target(machine)
        target.step()
        assert target.step_over().reason is StopReason.STEP
        assert (target.cpu.address, target.cpu.registers.rax & 0xFF) == (LOOPS, 1)
        assert not list(machine.breakpoints)


def test_an_exception_that_is_caught_stops_before_its_delivery() -> None:
    with Machine(LOOP, entry_mode=16, exceptions="none") as machine:
        target = Target(machine)
        caught = target.catch("ud if rax == 3")
        stop = target.resume()
        assert stop.exception is not None
        assert stop.exception.vector is Vector.UD
        assert target.cpu.address == UD2
        target.release(caught)
        machine.cpus[0].registers.rip += 2
        assert target.step(DISCARD).reason is StopReason.STEP
        assert target.cpu.registers.rax == 4


def test_vectors_that_are_passed_do_not_stop() -> None:
    with Machine(LOOP, entry_mode=16) as machine:
        target = Target(machine)
        target.catch("ud")
        target.passed = 1 << Vector.UD
        machine.memory.write(4 * Vector.UD, HLT.to_bytes(4, "little"))
        assert target.resume().reason is StopReason.HALTED
