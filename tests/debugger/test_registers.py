"""Registers by name, in groups."""

import pytest

from trapline.api import Machine
from trapline.arch.vectors import Vector
from trapline.debugger import registers
from trapline.debugger.registers import REGISTERS, Group, find, group_of
from trapline.debugger.target import Target
from trapline.errors import UsageError


@pytest.fixture
def target():
    """A target at the #PF of a sample in long mode."""
    with Machine("sample:pf") as machine:
        target = Target(machine)
        target.catch("pf")
        target.resume()
        yield target


def test_names_are_unique_and_groups_are_whole():
    assert len({register.name for register in REGISTERS}) == len(REGISTERS)
    assert [register for group in Group for register in group_of(group)] == list(REGISTERS)


def test_all_can_be_read_and_those_that_can_be_written_take_what_they_have(target):
    for register in REGISTERS:
        value = registers.read(target, register)
        assert value is None or 0 <= value < register.limit
        if register.writable:
            registers.write(target, register, value)
            assert registers.read(target, register) == value


def test_the_exception_has_a_group(target):
    exception = target.stop.exception
    found = {each.name: registers.read(target, each) for each in group_of(Group.EXCEPTION)}
    assert found == {
        "vector": Vector.PF,
        "error_code": exception.error_code,
        "fault_address": exception.address,
        "vectoring": None,
        "seq": 0,
    }
    target.step()
    assert {registers.read(target, each) for each in group_of(Group.EXCEPTION)} == {None}


def test_a_register_is_written(target):
    registers.write(target, find("RBX"), 1 << 63)
    registers.write(target, find("fs_base"), 0x1234)
    assert (target.cpu.registers.rbx, target.cpu.registers.fs.base) == (1 << 63, 0x1234)


@pytest.mark.parametrize(
    ("name", "value"), [("cpl", 0), ("vector", 1), ("cs", 1 << 16), ("rax", -1), ("idtr_limit", 1 << 16)]
)
def test_what_cannot_be_written(target, name, value):
    with pytest.raises(UsageError):
        registers.write(target, find(name), value)


def test_an_unknown_name():
    with pytest.raises(UsageError, match="no register is called 'rxx'"):
        find("rxx")


def test_floating_point_registers_are_those_of_the_stop():
    with Machine(bytes.fromhex("dbe3 d9e8 f4"), entry_mode=16) as machine:  # fninit; fld1; hlt
        target, tags = Target(machine), []
        for _ in range(3):
            tags.append(registers.read(target, find("ftw")))
            target.step()
        assert tags == [0x5555, 0xFFFF, 0x3FFF]
        assert registers.read(target, find("st0")) == 0x3FFF << 64 | 1 << 63
