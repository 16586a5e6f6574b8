"""Callers by call frame information."""

import pytest

from trapline.api import Machine
from trapline.debugger.target import Target
from trapline.symbols import load, unwind
from trapline.symbols.call_frames import Row

STEPS = 132
"""From the first instruction of a function beyond its return."""
NESTED = """
static int __attribute__((noinline)) inner(int *p) { *(volatile int *)p = 1; for (;;); }
int __attribute__((noinline)) outer(int *p) { return inner(p) + 1; }
void start(void) { static int x; outer(&x); }
"""


def names(target):
    return [None if frame.symbol is None else frame.symbol.name for frame in target.frames()]


@pytest.mark.slow
def test_at_each_instruction_the_callers_lead_to_the_first_function(kernel):
    """The kernel keeps no frame pointers: those of a function are elsewhere in its prologue and its epilogue."""
    with Machine(kernel.image, symbols=[str(kernel.symbols)]) as machine:
        target = Target(machine)
        machine.breakpoints.add("print")
        target.resume()
        machine.breakpoints.clear()
        seen = set()
        for _ in range(STEPS):
            found = names(target)
            assert found[-2:] == ["kernel_main", "long_mode"], found
            seen.add(len(found))
            target.step()
        assert len(seen) > 1


def test_the_file_of_a_program_for_32_bits_is_read(compiled):
    program = compiled(NESTED, "-m32", "-g", "-O1", "-fomit-frame-pointer", "-fno-pic", "-Wl,-e,start")
    symbols = load(program)
    first = symbols.row(symbols.addresses(["outer"])["outer"])
    assert first == Row(32, 4, 4, {8: -4})  # ESP + 4 is the frame, the return address below


def test_entries_that_are_too_many_are_left_out(compiled, monkeypatch):
    program = compiled(NESTED, "-g", "-O1", "-fno-pic", "-Wl,-e,start")
    place = load(program).addresses(["outer"])["outer"]
    assert load(program).row(place) is not None
    monkeypatch.setattr("trapline.symbols.call_frames._READS", 10)
    assert load(program).row(place) is None


def test_what_leads_nowhere_ends_it():
    stack = {0x100: 0x20, 0x108: 0x30}
    registers = dict.fromkeys(
        ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", *(f"r{number}" for number in range(8, 16))), 0
    )

    def unwound(row, *, is_code=lambda address: True, bits=64):
        def read(address, size):
            return stack.get(address, 0).to_bytes(8, "little")[: size if address in stack else 0]

        return unwind(read, {**registers, "rsp": 0x100}, 0x10, bits, row, is_code)

    up = Row(64, 7, 8, {16: -8})
    assert unwound(lambda address: up) == [0x20, 0x30]  # then the stack is not mapped
    assert unwound(lambda address: up, is_code=lambda address: address == 0x20) == [0x20]
    assert unwound({0x10: up, 0x1F: up, 0x20: None}.get) == [0x20, 0x30]  # a return address is asked for as its call
    assert unwound(lambda address: Row(64, 7, 0, {16: 0})) == []  # the frame is not above
    assert unwound(lambda address: Row(64, 7, 8, {})) == []  # the return address is not known
    assert unwound(lambda address: Row(32, 4, 4, {8: -4})) == []  # of code of another size
    assert unwound(lambda address: up, bits=16) == []
