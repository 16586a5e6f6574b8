import struct

import pytest

from trapline.arch import address_space, paging
from trapline.arch.layout import offset_of
from trapline.arch.registers import CR0, CR4, EFER
from trapline.errors import FaultError
from trapline.processors.qemu import firmware, tables
from trapline.processors.qemu.layout import BASE, IDENTITY_PDPT_AT, PDPT_AT, PML4_AT, SIZE, TABLES_AT, Tables

HANDLER = 0x80_0000_4321


@pytest.fixture
def written(memory):
    tables.write(memory, nmi_handler=HANDLER)
    return memory


@pytest.fixture
def translate(written):
    def read(gpa, size):
        if not BASE <= gpa <= gpa + size <= BASE + SIZE:
            raise FaultError(gpa)
        return bytes(written[gpa - BASE : gpa - BASE + size])

    return lambda gva: address_space.walk(read, CR0.PG, BASE + PML4_AT, CR4.PAE, EFER.LMA, gva)


@pytest.mark.parametrize("gva", [BASE, BASE + 0x4321, BASE + SIZE - 1])
def test_the_shared_memory_is_mapped_at_its_own_address(translate, gva):
    assert translate(gva) == gva


@pytest.mark.parametrize("gva", [0, 0xFFFF_FFF0, BASE - 1])
def test_the_memory_below_is_mapped_at_its_own_address(translate, gva):
    assert translate(gva) == gva


@pytest.mark.parametrize("gva", [BASE + (1 << 30), BASE + (1 << 39)])
def test_nothing_else_is_mapped(translate, gva):
    with pytest.raises(paging.NotMapped):
        translate(gva)


def operand(memory, name):
    limit, base = struct.unpack_from("<HQ", memory, TABLES_AT + offset_of(Tables, name))
    return bytes(memory[base - BASE : base - BASE + limit + 1])


def test_the_operands_lead_to_the_tables(written):
    assert struct.unpack("<4Q", operand(written, "gdt_operand")) == firmware.DESCRIPTORS
    assert len(operand(written, "idt_operand")) == 3 * 16
    assert operand(written, "null_idt_operand") == b"\0"  # too short for any gate


def test_only_an_nmi_has_a_gate(written):
    idt = operand(written, "idt_operand")
    assert not any(idt[:32])
    low, selector, attributes, middle, high, reserved = struct.unpack("<HHHHII", idt[32:])
    assert low | middle << 16 | high << 32 == HANDLER
    assert (selector, attributes, reserved) == (firmware.CODE64, 0x8E00, 0)
    assert firmware.DESCRIPTORS[selector // 8] >> 53 & 1  # 64-bit code


def test_nothing_is_written_beyond_its_page(written):
    pages = {place // 0x1000 for place in range(0, 0x10000, 8) if any(written[place : place + 8])}
    assert {page * 0x1000 for page in pages} == {TABLES_AT, PML4_AT, PDPT_AT, IDENTITY_PDPT_AT}
