"""The tables of a stopped CPU."""

import pytest

from trapline.api import Machine
from trapline.debugger import tables
from trapline.debugger.target import Target
from trapline.errors import UsageError
from trapline.explain.pictures import State


def stopped_at(vectors, guest):
    """A machine stopped at an exception."""
    machine = Machine(guest)
    target = Target(machine)
    target.catch(vectors)
    target.resume()
    return machine, target


def test_the_tables_of_long_mode():
    machine, target = stopped_at("ud", "sample:gate-not-present")
    with machine:
        idt = tables.idt(target)
        assert idt.base == target.cpu.registers.idtr.base
        assert idt.entries[6].label == "6 #UD"
        assert idt.entries[6].state is State.ABSENT
        assert [(field.name, field.value) for field in idt.entries[6].fields][-2:] == [("P", "0"), ("IST", "0")]
        assert not any(field.wrong for entry in idt.entries for field in entry.fields)
        assert len(tables.idt(target, 8).entries) == 8
        gdt = tables.gdt(target)
        assert gdt.limit == target.cpu.registers.gdtr.limit
        (code,) = (entry for entry in gdt.entries if entry.used and "CS" in entry.used)
        assert "64-bit code" in code.text
        with pytest.raises(UsageError, match="LDTR is null"):
            tables.ldt(target)


def test_the_stacks_of_a_task():
    machine, target = stopped_at("ud", "sample:bad-tss-stack")
    with machine:
        tss = tables.tss(target)
        assert [entry.label for entry in tss.entries][:3] == ["RSP0", "RSP1", "RSP2"]
        assert tss.entries[0].state is State.WRONG


def test_real_mode_has_a_vector_table():
    with Machine(bytes.fromhex("0f0b"), entry_mode=16) as machine:
        target = Target(machine)
        assert len(tables.idt(target).entries) == 256
        assert tables.idt(target).entries[6].address == 24
        with pytest.raises(UsageError, match="real mode has no TSS"):
            tables.tss(target)
        assert tables.walk(target, 0x7C00) == tables.PageWalk(
            0x7C00, 0, (), 0x7C00, ("read", "write", "execute", "user"), None
        )


def test_page_walks():
    machine, target = stopped_at("pf", "sample:pf")
    with machine:
        here = tables.walk(target, target.cpu.address)
        assert here.gpa is not None
        assert machine.memory.read(here.gpa, 2) == target.cpu.read(target.cpu.address, 2)
        assert [entry.name for entry in here.entries][:2] == ["PML4E", "PDPE"]
        assert "execute" in here.rights
        assert here.denied is None
        fault = tables.walk(target, target.stop.exception.address)
        assert (fault.gpa, fault.rights) == (None, ())
        assert fault.denied.startswith("not mapped: ")
        assert [entry.wrong for entry in fault.entries] == [False] * (len(fault.entries) - 1) + [True]
        assert not fault.entries[-1].value & 1
        assert tables.walk(target, 1 << 62).denied == "not a canonical address"
