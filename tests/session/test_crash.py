"""Where a stopped guest is, read through its page tables; no processor runs."""

import struct

import pytest

from trapline.arch.layout import size_of
from trapline.arch.registers import Gprs
from trapline.arch.vmcb import Vmcb
from trapline.machine.registers import Registers, unchecked
from trapline.machine.scripted import ScriptedMemory, ScriptedProcessor
from trapline.session.crash import crash_context
from trapline.session.placing import kernel_values
from trapline.symbols import Names

CODE_64, CODE_32, CODE_16 = 1 << 9, 1 << 10, 0
LONG = 1 << 10


@pytest.fixture
def guest():
    """A guest whose first 64 KiB are mapped one to one, in long mode; protected mode without paging otherwise."""
    vmcb = Vmcb.from_buffer(bytearray(size_of(Vmcb)))
    gprs = Gprs.from_buffer(bytearray(size_of(Gprs)))
    memory = ScriptedMemory(1 << 16)
    for at, entry in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003)):
        memory.write(at, struct.pack("<Q", entry))
    for page in range(5, 16):
        memory.write(0x4000 + 8 * page, struct.pack("<Q", page << 12 | 3))
    save = vmcb.save
    save.cr0, save.cr3, save.cr4, save.efer = 1 << 31 | 1, 0x1000, 1 << 5, LONG | 1 << 8
    save.cs.attributes = CODE_64
    save.rip, save.rsp = 0x5100, 0x8000
    return vmcb, gprs, memory


def taken(guest):
    vmcb, gprs, memory = guest
    return crash_context(Registers(vmcb.save, gprs, unchecked), memory, Names(), "intel")


def test_code_callers_and_stack(guest):
    _vmcb, gprs, memory = guest
    memory.write(0x50F0, b"\x90" * 16 + b"\x0f\x0b")
    memory.write(0x8000, struct.pack("<4Q", 1, 2, 0, 0x5200))
    gprs.rbp = 0x8010
    crash = taken(guest)
    assert (crash.bits, crash.address) == (64, 0x5100)
    texts = {line.address: line.text for line in crash.code}
    assert (texts[0x50FF], texts[0x5100]) == ("nop", "ud2")
    assert [frame.address for frame in crash.callers] == [0x5200]
    assert crash.stack_address == 0x8000
    assert [entry.value for entry in crash.stack[:4]] == [1, 2, 0, 0x5200]


def test_what_is_kept_stays_as_it_was(guest):
    vmcb, gprs, _ = guest
    registers = taken(guest).registers
    vmcb.save.rip, gprs.rbx = 0x7777, 5
    assert (registers.rip, registers.rbx) == (0x5100, 0)
    with pytest.raises(AttributeError, match="cannot be written"):
        registers.rip = 1


def test_as_json(guest):
    found = taken(guest).to_json()
    assert (found["address"], found["registers"]["rip"], found["registers"]["cr3"]) == ("0x5100", "0x5100", "0x1000")
    assert found["stack"][0] == {"value": "0x0"}
    assert [line["at"] for line in found["code"]].count(True) == 1


def test_a_page_before_that_is_not_mapped(guest):
    vmcb, _gprs, memory = guest
    vmcb.save.rip = 0x5004
    memory.write(0x5000, b"\x90\x90\x90\x90\x0f\x0b")
    texts = {line.address: line.text for line in taken(guest).code}
    assert min(texts) >= 0x5000
    assert texts[0x5004] == "ud2"


def test_nothing_is_mapped(guest):
    vmcb, gprs, _memory = guest
    vmcb.save.rip, vmcb.save.rsp, gprs.rbp = 0x10_0000, 0xFFFF_8000_0000_0000, 0xFFFF_8000_0000_0000
    crash = taken(guest)
    assert (crash.code, crash.callers, crash.stack) == ((), (), ())


def test_segments_of_real_mode(guest):
    vmcb, gprs, memory = guest
    save = vmcb.save
    save.cr0, save.cr4, save.efer = 0, 0, 0
    save.cs.attributes, save.cs.base, save.ss.base = CODE_16, 0x5000, 0x8000
    save.rip, save.rsp, gprs.rbp = 0x10, 0x20, 0x24
    memory.write(0x8020, struct.pack("<4H", 7, 8, 0, 0x66))
    crash = taken(guest)
    assert (crash.bits, crash.address) == (16, 0x5010)
    assert [frame.address for frame in crash.callers] == [0x5066]
    assert crash.stack_address == 0x8020
    assert [entry.value for entry in crash.stack[:2]] == [7, 8]


def test_where_a_kernel_has_its_entries(guest):
    vmcb, gprs, memory = guest
    processor = ScriptedProcessor([])
    processor.vmcb, processor.gprs, processor.memory = vmcb, gprs, memory
    handler = 0xFFFF_FFFF_8A00_1234
    gate = struct.pack("<HHBBHII", handler & 0xFFFF, 8, 0, 0x8E, handler >> 16 & 0xFFFF, handler >> 32, 0)
    memory.write(0x6000 + 16 * 14, gate)
    save = vmcb.save
    save.idtr.base, save.idtr.limit, save.lstar = 0x6000, 0xFFF, 0xFFFF_FFFF_8A00_0000
    values = kernel_values(processor)
    assert values.lstar == 0xFFFF_FFFF_8A00_0000
    assert values.handlers == {14: handler}
    save.idtr.limit = 16 * 14 - 1
    assert kernel_values(processor).handlers == {}
    save.efer = 0
    assert kernel_values(processor) is None
